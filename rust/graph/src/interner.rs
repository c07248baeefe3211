//! Interned lists of integers: shapes, strides, axes, permutations, padding widths.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{Error, Result, tables};

/// An interned list of integers. Id 0 is the empty list, so it is also the shape of a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ListId(pub u32);

impl ListId {
    pub const EMPTY: ListId = ListId(0);
}

/// The lists of one graph. Ids are handed out in the order of first use, so equal programs get equal ids.
#[derive(Debug)]
pub struct ListTable {
    lists: Vec<Arc<[i64]>>,
    /// The product of each list: of a shape, its number of elements.
    products: Vec<i64>,
    ids: FxHashMap<Arc<[i64]>, ListId>,
    hash: u64,
    /// The list that was asked for last: mostly the next one too.
    recent: ListId,
}

impl Default for ListTable {
    fn default() -> Self {
        let empty: Arc<[i64]> = Arc::from([]);
        let mut ids = FxHashMap::default();
        ids.insert(Arc::clone(&empty), ListId::EMPTY);
        ListTable { lists: vec![empty], products: vec![1], ids, hash: 0, recent: ListId::EMPTY }
    }
}

impl PartialEq for ListTable {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.lists == other.lists
    }
}

impl ListTable {
    #[inline]
    pub fn intern(&mut self, list: &[i64]) -> Result<ListId> {
        if list.is_empty() {
            return Ok(ListId::EMPTY);
        }
        if self.get(self.recent) == list {
            return Ok(self.recent);
        }
        self.find_or_add(list)
    }

    fn find_or_add(&mut self, list: &[i64]) -> Result<ListId> {
        if let Some(&id) = self.ids.get(list) {
            self.recent = id;
            return Ok(id);
        }
        let refused = |_| Error::memory("record", std::mem::size_of_val(list));
        self.lists.try_reserve(1).map_err(refused)?;
        self.products.try_reserve(1).map_err(refused)?;
        self.ids.try_reserve(1).map_err(refused)?;
        let id = ListId(u32::try_from(self.lists.len()).map_err(|_| Error::memory("record", usize::MAX))?);
        let list: Arc<[i64]> = Arc::from(list);
        let mut hasher = FxBuildHasher.build_hasher();
        hasher.write_u64(self.hash);
        for &item in list.iter() {
            hasher.write_i64(item);
        }
        hasher.write_usize(list.len());
        self.hash = hasher.finish();
        // Not every list is a shape; products of shapes were checked when they were inferred.
        self.products.push(list.iter().fold(1, |product, &item| product.wrapping_mul(item)));
        self.lists.push(Arc::clone(&list));
        self.ids.insert(list, id);
        Ok(id)
    }

    /// A copy, or the error that there is no memory for it.
    pub fn copied(&self) -> Result<ListTable> {
        let mut ids = FxHashMap::default();
        tables::room_for_keys("copy", &mut ids, self.ids.len())?;
        ids.extend(self.ids.iter().map(|(list, &id)| (Arc::clone(list), id)));
        Ok(ListTable {
            lists: tables::list("copy", self.lists.iter().cloned())?,
            products: tables::list("copy", self.products.iter().copied())?,
            ids,
            hash: self.hash,
            recent: self.recent,
        })
    }

    #[inline]
    pub fn get(&self, id: ListId) -> &[i64] {
        &self.lists[id.0 as usize]
    }

    /// The product of the list's items; without meaning where it does not fit.
    #[inline]
    pub fn product(&self, id: ListId) -> i64 {
        self.products[id.0 as usize]
    }

    pub fn len(&self) -> usize {
        self.lists.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// A hash of all lists in order; it grows with the table and costs nothing to read.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
