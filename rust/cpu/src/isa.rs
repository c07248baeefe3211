//! Which instruction set the lanes run on: the widest that the CPU has, or what `CKAD_ISA` asks for.

use std::sync::OnceLock;

use ckad_graph::{Error, Result};

/// An instruction set for which lanes are compiled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Isa {
    /// What the target always has: SSE2 on x86-64, NEON on AArch64.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// Name in `CKAD_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match self {
                Isa::Scalar => true,
                Isa::Avx2 => avx2,
                Isa::Avx512 => avx2 && avx512,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Scalar
        }
    }

    /// The instruction set that `wish` (the value of `CKAD_ISA`) names, or the widest there is.
    fn choose(wish: Option<&str>) -> Result<Isa> {
        let refuse = |what: String| {
            let available: Vec<_> = Isa::ALL.iter().filter(|isa| isa.is_available()).map(|isa| isa.name()).collect();
            Err(Error::value("CKAD_ISA", what).with_hint(format!("this CPU has {}", available.join(", "))))
        };
        match wish {
            None | Some("") => Ok(Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Scalar)),
            Some(name) => match Isa::ALL.into_iter().find(|isa| isa.name() == name) {
                Some(isa) if isa.is_available() => Ok(isa),
                Some(isa) => refuse(format!("the CPU does not have {}", isa.name())),
                None => refuse(format!("unknown instruction set {name:?}")),
            },
        }
    }
}

/// The instruction set of this process, chosen at first use.
pub fn isa() -> Result<Isa> {
    static CHOSEN: OnceLock<Result<Isa>> = OnceLock::new();
    CHOSEN.get_or_init(|| Isa::choose(std::env::var("CKAD_ISA").ok().as_deref())).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_or_refused() {
        assert_eq!(Isa::choose(Some("scalar")).unwrap(), Isa::Scalar);
        assert!(Isa::choose(None).unwrap().is_available());
        assert!(Isa::choose(Some("sse9")).unwrap_err().to_string().contains("scalar"));
        for isa in Isa::ALL {
            assert_eq!(Isa::choose(Some(isa.name())).is_ok(), isa.is_available());
        }
    }
}
