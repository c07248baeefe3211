//! Lowered programs by the structure of the graph they came from.
//!
//! A graph is found by its structure hash together with the caller's key (which transform, which policy) and accepted
//! by full equality. The cache is bounded in bytes; what was used longest ago goes first.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ckad_graph::Graph;
use rustc_hash::FxHashMap;

/// A least-recently-used cache of payloads `P`, found by graph and key `K`.
#[derive(Debug)]
pub struct ProgramCache<K, P> {
    state: Mutex<State<K, P>>,
}

#[derive(Debug)]
struct State<K, P> {
    capacity: usize,
    bytes: usize,
    /// Counts accesses; an entry's is the time of its last.
    clock: u64,
    /// Times of last access, by structure hash and key. Almost always one.
    found: FxHashMap<(u64, K), Vec<u64>>,
    entries: BTreeMap<u64, Entry<K, P>>,
}

#[derive(Debug)]
struct Entry<K, P> {
    graph: Graph,
    key: (u64, K),
    payload: Arc<P>,
    bytes: usize,
}

impl<K: Clone + Eq + Hash, P> ProgramCache<K, P> {
    /// An empty cache that holds up to `capacity` bytes.
    pub fn new(capacity: usize) -> ProgramCache<K, P> {
        let state = State { capacity, bytes: 0, clock: 0, found: FxHashMap::default(), entries: BTreeMap::new() };
        ProgramCache { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<K, P>> {
        // Nothing panics while the state is in between, so a poisoned one is as good as another.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept for a graph of the same structure under this key; otherwise what `make` gives, a payload and its
    /// bytes, which is kept from now on. Whoever makes the same at the same time gets the first one.
    pub fn get_or_make<E>(
        &self,
        graph: &Graph,
        key: K,
        make: impl FnOnce() -> Result<(P, usize), E>,
    ) -> Result<Arc<P>, E> {
        let key = (graph.structure_hash(), key);
        if let Some(found) = self.find(graph, &key) {
            return Ok(found);
        }
        let (payload, bytes) = make()?;
        Ok(self.insert(graph, key, payload, bytes))
    }

    fn find(&self, graph: &Graph, key: &(u64, K)) -> Option<Arc<P>> {
        let mut state = self.state();
        let state = &mut *state;
        let times = state.found.get_mut(key)?;
        let entries = &mut state.entries;
        let position =
            times.iter().position(|time| entries.get(time).is_some_and(|entry| entry.graph.same_structure(graph)))?;
        let entry = entries.remove(&times[position])?;
        state.clock += 1;
        times[position] = state.clock;
        let payload = Arc::clone(&entry.payload);
        entries.insert(state.clock, entry);
        Some(payload)
    }

    /// Keeps `payload` of `bytes` with a copy of the graph's structure for comparison, unless it alone exceeds the
    /// capacity, or there is no memory to remember it. The payload, or the one that was there already.
    fn insert(&self, graph: &Graph, key: (u64, K), payload: P, bytes: usize) -> Arc<P> {
        let payload = Arc::new(payload);
        if bytes.saturating_add(graph.own_bytes()) > self.state().capacity {
            return payload;
        }
        if let Some(present) = self.find(graph, &key) {
            return present;
        }
        // No captured array may live on because of a comparison.
        let Ok(graph) = graph.structure() else { return payload };
        let bytes = bytes.saturating_add(graph.own_bytes());
        let mut state = self.state();
        if state.found.try_reserve(1).is_err() {
            return payload;
        }
        state.clock += 1;
        let clock = state.clock;
        state.bytes += bytes;
        state.found.entry(key.clone()).or_default().push(clock);
        state.entries.insert(clock, Entry { graph, key, payload: Arc::clone(&payload), bytes });
        state.evict();
        payload
    }

    /// Bytes that the entries occupy.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the bound, and drops what is beyond it.
    pub fn set_capacity(&self, capacity: usize) {
        let mut state = self.state();
        state.capacity = capacity;
        state.evict();
    }

    /// Drops everything.
    pub fn clear(&self) {
        let mut state = self.state();
        state.bytes = 0;
        state.found.clear();
        state.entries.clear();
    }
}

impl<K: Clone + Eq + Hash, P> State<K, P> {
    fn evict(&mut self) {
        while self.bytes > self.capacity {
            let Some((time, entry)) = self.entries.pop_first() else { return };
            self.bytes -= entry.bytes;
            if let Some(times) = self.found.get_mut(&entry.key) {
                times.retain(|&other| other != time);
                if times.is_empty() {
                    self.found.remove(&entry.key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckad_graph::{Attributes, DType, Op};

    impl<K: Clone + Eq + Hash, P> ProgramCache<K, P> {
        fn get(&self, graph: &Graph, key: K) -> Option<Arc<P>> {
            self.get_or_make(graph, key, || Err(())).ok()
        }

        fn put(&self, graph: &Graph, key: K, payload: P, bytes: usize) -> Arc<P> {
            self.get_or_make::<()>(graph, key, || Ok((payload, bytes))).unwrap()
        }
    }

    fn graph(inputs: usize, scalar: u64) -> Graph {
        let mut graph = Graph::new();
        let shape = graph.lists.intern(&[3]).unwrap();
        for _ in 0..inputs {
            graph.push_input(DType::F32, shape, Attributes::default()).unwrap();
        }
        graph.push_scalar(DType::F32, scalar, Attributes::default()).unwrap();
        let input = graph.inputs[0];
        let out = graph.push(Op::StopGradient, &[input], DType::F32, shape, Attributes::default()).unwrap();
        graph.outputs.push(out);
        graph
    }

    #[test]
    fn structure_and_key_decide() {
        let cache = ProgramCache::new(1 << 20);
        cache.put(&graph(1, 5), "grad", 11, 100);
        cache.put(&graph(2, 5), "grad", 12, 100);
        cache.put(&graph(1, 5), "plain", 13, 100);
        // Scalars are inputs, not structure.
        assert_eq!(cache.get(&graph(1, 9), "grad").as_deref(), Some(&11));
        assert_eq!(cache.get(&graph(2, 9), "grad").as_deref(), Some(&12));
        assert_eq!(cache.get(&graph(1, 9), "plain").as_deref(), Some(&13));
        assert_eq!(cache.get(&graph(3, 9), "grad"), None);
        assert_eq!(*cache.put(&graph(1, 7), "grad", 99, 100), 11);
        assert_eq!(cache.len(), 3);
        cache.clear();
        assert!(cache.is_empty() && cache.bytes() == 0 && cache.get(&graph(1, 5), "grad").is_none());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let own = graph(5, 0).own_bytes();
        let cache = ProgramCache::new(3 * (1000 + own));
        for inputs in 1..=3 {
            cache.put(&graph(inputs, 0), 0, inputs, 1000);
        }
        assert!(cache.get(&graph(1, 0), 0).is_some());
        for inputs in 4..=5 {
            cache.put(&graph(inputs, 0), 0, inputs, 1000);
        }
        assert!(cache.bytes() <= 3 * (1000 + own));
        assert!(cache.get(&graph(1, 0), 0).is_some());
        assert!(cache.get(&graph(2, 0), 0).is_none());
        assert!(cache.get(&graph(5, 0), 0).is_some());
        assert_eq!(*cache.put(&graph(6, 0), 0, 6, usize::MAX), 6);
        assert!(cache.get(&graph(6, 0), 0).is_none() && cache.get(&graph(5, 0), 0).is_some());
        cache.set_capacity(0);
        assert!(cache.is_empty() && cache.state().found.is_empty());
    }
}
