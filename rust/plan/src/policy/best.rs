//! The best of what a policy makes of some clusterings, in several sizes where it has sizes.
//!
//! Tries are judged by the figures of what they compute, and only the one that is taken is written as a schedule.

use ckad_graph::{CheckpointPolicy, Result};

use crate::policy::cells::Cells;
use crate::policy::region::{Heed, Known};
use crate::policy::sequence::Figures;
use crate::policy::{Attempt, Material, offload, region};
use crate::program::Target;
use crate::tables::push;
use crate::two_threads;

/// What was tried.
struct Tried<'m, 'a> {
    figures: Figures,
    way: Way<'m, 'a>,
}

enum Way<'m, 'a> {
    Cells {
        material: &'m Material<'a>,
        cells: Cells,
        /// Whether slots for states or steps hold states only.
        states_only: bool,
    },
    /// What is judged by its schedule.
    Written(Attempt),
}

impl Tried<'_, '_> {
    fn attempt(self) -> Result<Attempt> {
        match self.way {
            Way::Cells { material, cells, states_only } => Ok(Attempt { states_only, ..material.attempt(&cells)? }),
            Way::Written(attempt) => Ok(attempt),
        }
    }
}

/// The best of what was tried.
pub(super) struct Best<'m, 'a> {
    /// The most bytes live where everything is kept.
    kept_live: u64,
    tried: Option<Tried<'m, 'a>>,
}

impl<'m, 'a> Best<'m, 'a> {
    /// Nothing was tried yet.
    pub(super) fn new(kept_live: u64) -> Best<'m, 'a> {
        Best { kept_live, tried: None }
    }

    /// Tries what the policy makes of the clusterings.
    pub(super) fn of(
        &mut self,
        target: &Target,
        materials: &[&'m Material<'a>],
        policy: CheckpointPolicy,
        heed: Heed,
    ) -> Result<()> {
        let clusters = |material: &Material<'_>| material.clustering.clusters.len();
        let all = materials.iter().map(|material| clusters(material)).sum();
        let asked = two_threads::map(two_threads::are_worth_it(target, all), materials, |&material| {
            let profile = material.profile()?;
            let mut known = Known::default();
            let mut asked: Vec<(&Material<'a>, Cells, bool)> = Vec::new();
            for variant in region::variants(material, policy, heed) {
                let cells = region::cells(material, &profile, &mut known, variant)?;
                if !asked.iter().any(|(_, other, _)| *other == cells) {
                    push(&mut asked, (material, cells, known.states_only))?;
                }
            }
            Ok(asked)
        })?;
        let asked: Vec<_> = asked.into_iter().flatten().collect();
        let all = asked.iter().map(|(material, ..)| clusters(material)).sum();
        let judged =
            two_threads::map(two_threads::are_worth_it(target, all), &asked, |(material, cells, _)| match policy {
                CheckpointPolicy::Offload(least_bytes) => {
                    let mut attempt = material.attempt(cells)?;
                    attempt.schedule = offload::offloaded(material, &attempt.schedule, least_bytes)?;
                    attempt.figures = material.simulated(&attempt.schedule)?;
                    Ok((attempt.figures, Some(attempt)))
                }
                _ => Ok((material.figures(cells)?, None)),
            })?;
        for ((material, cells, states_only), (figures, written)) in asked.into_iter().zip(judged) {
            let way = written.map_or(Way::Cells { material, cells, states_only }, Way::Written);
            self.take(Tried { figures, way });
        }
        Ok(())
    }

    /// Tries what is written already.
    pub(super) fn of_written(&mut self, attempt: Attempt) {
        self.take(Tried { figures: attempt.figures, way: Way::Written(attempt) });
    }

    fn take(&mut self, tried: Tried<'m, 'a>) {
        let order = |tried: &Tried<'_, '_>| tried.figures.order(self.kept_live);
        // Of equal ones the first.
        if self.tried.as_ref().is_none_or(|best| order(&tried) < order(best)) {
            self.tried = Some(tried);
        }
    }

    pub(super) fn figures(&self) -> Option<Figures> {
        self.tried.as_ref().map(|tried| tried.figures)
    }

    /// The best one, written.
    pub(super) fn attempt(self) -> Result<Option<Attempt>> {
        self.tried.map(Tried::attempt).transpose()
    }
}
