//! Elementwise primitives: everything that follows from the rows of the table, and nothing that names a row.
//!
//! The enum and its facts are here; shapes and the constructor in `infer`, derivatives in `rules`.

#[macro_use]
mod table;
mod infer;
mod rules;

pub(crate) use infer::{cost, infer};
pub(crate) use rules::{diff, transpose};

use ckad_graph::{DType, ElementwiseId, Op};

use crate::Expr;

/// Which dtypes the operands of a row may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Domain {
    Float,
    Number,
    Integer,
    Bits,
    All,
}

impl Domain {
    #[inline]
    const fn allows(self, dtype: DType) -> bool {
        match self {
            Domain::Float => dtype.is_float(),
            Domain::Number => !matches!(dtype, DType::Bool),
            Domain::Integer => dtype.is_integer(),
            Domain::Bits => !dtype.is_float(),
            Domain::All => true,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Domain::Float => "floats",
            Domain::Number => "numbers",
            Domain::Integer => "integers",
            Domain::Bits => "integers and bools",
            Domain::All => "every dtype",
        }
    }
}

/// The fields of a row that are plain data.
struct Row {
    doc: &'static str,
    name: &'static str,
    numpy: &'static str,
    wgsl: &'static str,
    domain: Domain,
    gives_bool: bool,
    cost: u32,
    sample: &'static [(f64, f64)],
}

macro_rules! domain {
    (FLOAT) => {
        Domain::Float
    };
    (NUMBER) => {
        Domain::Number
    };
    (INTEGER) => {
        Domain::Integer
    };
    (BITS) => {
        Domain::Bits
    };
    (ALL) => {
        Domain::All
    };
}

macro_rules! gives_bool {
    (same) => {
        false
    };
    (bool) => {
        true
    };
}

/// `Expr::tanh(self)`, `Expr::add(self, b)`, `Expr::select(self, b, c)`.
macro_rules! method {
    ($(#[$doc:meta])* $variant:ident $name:ident 1) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(self) -> Expr<'b> {
            self.elementwise(Elementwise::$variant, &[self])
        }
    };
    ($(#[$doc:meta])* $variant:ident $name:ident 2) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(self, b: Expr<'b>) -> Expr<'b> {
            self.elementwise(Elementwise::$variant, &[self, b])
        }
    };
    ($(#[$doc:meta])* $variant:ident $name:ident 3) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(self, b: Expr<'b>, c: Expr<'b>) -> Expr<'b> {
            self.elementwise(Elementwise::$variant, &[self, b, c])
        }
    };
}

macro_rules! define {
    ($( $(#[doc = $doc:literal])* $variant:ident $name:ident ($arity:tt) {
        dtypes: $dtypes:ident, result: $result:ident, cpu: $cpu:path, wgsl: $wgsl:literal, d: $d:tt,
        cost: $cost:literal, sample: $sample:tt, numpy: $numpy:literal,
    } )*) => {
        /// A row of the table.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Elementwise {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl Elementwise {
            /// Every row, in the order of the table: `ALL[i].id()` is `ElementwiseId(i)`.
            pub const ALL: &'static [Elementwise] = &[$(Elementwise::$variant),*];

            #[inline]
            pub const fn arity(self) -> usize {
                match self {
                    $(Elementwise::$variant => $arity,)*
                }
            }
        }

        /// In the order of the table.
        static ROWS: [Row; Elementwise::ALL.len()] = [$(Row {
            doc: concat!($($doc),*),
            name: stringify!($name),
            numpy: $numpy,
            wgsl: $wgsl,
            domain: domain!($dtypes),
            gives_bool: gives_bool!($result),
            cost: $cost,
            sample: &{
                const RANGES: [(f64, f64); $arity] = $sample;
                RANGES
            },
        }),*];

        // The rows are named as NumPy names them; `a.add(b)` is what the operator records too.
        #[allow(clippy::should_implement_trait)]
        impl<'b> Expr<'b> {
            $(method!($(#[doc = $doc])* $variant $name $arity);)*
        }
    };
}
elementwise_table! { define }

impl Elementwise {
    pub const fn id(self) -> ElementwiseId {
        ElementwiseId(self as u8)
    }

    /// The row of an id. Ids come from [`Elementwise::id`] alone; one beyond the table reads as the last row.
    #[inline]
    pub fn from_id(id: ElementwiseId) -> Elementwise {
        Self::ALL[usize::from(id.0).min(Self::ALL.len() - 1)]
    }

    pub const fn op(self) -> Op {
        Op::Elementwise(self.id())
    }

    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Name in graphs, errors and `Expr`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Name of the NumPy function; empty where there is none.
    pub const fn numpy(self) -> &'static str {
        self.row().numpy
    }

    /// One sentence.
    pub fn doc(self) -> &'static str {
        self.row().doc.trim()
    }

    /// The shader expression in the operands a, b, c.
    pub const fn wgsl(self) -> &'static str {
        self.row().wgsl
    }

    /// Floating point operations an element.
    #[inline]
    pub const fn cost(self) -> u64 {
        self.row().cost as u64
    }

    /// Per operand, a range in which the function and its derivatives are smooth.
    pub const fn sample(self) -> &'static [(f64, f64)] {
        self.row().sample
    }

    /// dtype of the result for operands of `dtype` (of `select`: the second and third); `None` where not allowed.
    #[inline]
    pub const fn result_dtype(self, dtype: DType) -> Option<DType> {
        let row = self.row();
        if !row.domain.allows(dtype) {
            None
        } else if row.gives_bool {
            Some(DType::Bool)
        } else {
            Some(dtype)
        }
    }

    /// The dtypes that the row is defined for, in words.
    pub const fn dtypes_text(self) -> &'static str {
        self.row().domain.text()
    }

    /// Index of the operand whose dtype `result_dtype` speaks of.
    #[inline]
    pub const fn typed_operand(self) -> usize {
        if matches!(self, Elementwise::Select) { 1 } else { 0 }
    }
}
