//! Events in any order.

use super::super::*;
use super::{Script, backend, digest, release};
use crate::gate::{Measurement, Sample};

/// A small generator with a fixed seed: the same scripts in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Whatever happens in whatever order, the invariants hold, and a world that behaves from some moment on
/// brings the environment to rest.
#[test]
fn any_order_of_events_keeps_the_invariants_and_comes_to_rest() {
    let names = ["a", "b", "c"];
    for seed in 0..80 {
        let mut random = Lcg(seed);
        let mut s = Script::new();
        for _ in 0..60 {
            let name = names[random.below(3) as usize];
            let mode = match random.below(4) {
                0 => ApplyMode::Full,
                1 => ApplyMode::Canary { pods: 1 },
                2 => ApplyMode::Promote,
                _ => ApplyMode::Rollback,
            };
            match random.below(16) {
                0 | 1 => drop(s.feed(Event::Candidate(release(name)))),
                2 | 3 => drop(s.feed(Event::Admitted { digest: digest(name) })),
                4 => {
                    let reason = if random.below(2) == 0 {
                        HoldReason::PolicyDenied
                    } else {
                        HoldReason::ApplyRejected
                    };
                    let problem = DoorProblem {
                        reason,
                        message: "no".into(),
                        transient: random.below(2) == 0,
                        again_at: None,
                    };
                    s.feed(Event::Refused { digest: digest(name), problem });
                }
                5 | 6 => s.applied(name, mode, if random.below(2) == 0 { vec![backend()] } else { vec![] }),
                7 => drop(s.feed(Event::ApplyFailed { digest: digest(name), mode, message: "503".into() })),
                8 | 9 => drop(s.ready()),
                10 => drop(s.unready("CrashLoopBackOff", random.below(3) == 0)),
                11 => s.prune(name),
                12 => drop(s.pass(random.below(400) as i64)),
                13 => drop(s.feed(Event::Started)),
                14 => drop(s.feed(Event::Drifted { objects: vec![backend()] })),
                _ => {
                    let command = match random.below(3) {
                        0 => Command::Retry,
                        1 => Command::Rollback,
                        _ => Command::Approve(digest(name)),
                    };
                    s.feed(Event::Commanded { command, actor: "mina".into() });
                }
            }
        }
        // From now on everything that is asked for is done, and every pod is ready.
        let mut asked = s.feed(Event::Started);
        asked.extend(s.feed(Event::Candidate(release("d"))));
        for _ in 0..60 {
            for effect in std::mem::take(&mut asked) {
                asked.extend(match effect {
                    Effect::Check { digest, .. } => s.feed(Event::Admitted { digest }),
                    Effect::Apply { digest, mode } => {
                        let canaries =
                            if matches!(mode, ApplyMode::Canary { .. }) { vec![backend()] } else { vec![] };
                        s.feed(Event::Applied { digest, mode, canaries, changed: 1 })
                    }
                    Effect::Prune { digest, .. } => {
                        s.feed(Event::Pruned { digest, deleted: 0, kept: vec![] })
                    }
                    Effect::Observe => s.ready(),
                    Effect::Sample { gate } => {
                        let sample = Sample {
                            at: s.now,
                            new: Measurement::Value(0.0),
                            old: Some(Measurement::Value(0.0)),
                            query: "q".into(),
                        };
                        s.feed(Event::Sampled { gate, sample })
                    }
                    Effect::Announce | Effect::Warn { .. } => Vec::new(),
                });
            }
            asked.extend(s.pass(1));
        }
        assert_eq!(s.rollout.phase, Phase::Settled, "seed {seed}: {:#?}", s.log);
        assert_eq!(s.rollout.settled.as_ref().map(|r| r.digest), Some(digest("d")), "seed {seed}");
    }
}
