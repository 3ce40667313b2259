//! The points of time at which the power is cut. They follow from a seed.

use std::time::Duration;

use crate::support::fleet::seeded::Seeded;

/// What the revision is that the machine moves to when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// It is switched to, and stays.
    Good,
    /// It is switched to, fails its probation, and the machine goes back.
    Bad,
    /// It is set for the next boot.
    NextBoot,
}

/// A part of the way to a revision. The power is cut some time after it begins, or later where it is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Fetch,
    Realise,
    Profile,
    BootLoader,
    Activation,
    Probation,
    GoingBack,
    /// Everything is done that is done before a reboot.
    Done,
}

impl Phase {
    /// How long it takes at most, about, as seen on two cores.
    const fn length(self) -> Duration {
        Duration::from_millis(match self {
            Self::Fetch | Self::Probation => 2_500,
            Self::Realise => 3_000,
            Self::Profile | Self::Done => 1_000,
            Self::BootLoader => 400,
            Self::Activation | Self::GoingBack => 3_500,
        })
    }
}

/// The phases of each scenario that are cut, in the order in which they come.
const PHASES: [(Scenario, &[Phase]); 3] = [
    (
        Scenario::Good,
        &[
            Phase::Fetch,
            Phase::Realise,
            Phase::Profile,
            Phase::BootLoader,
            Phase::Activation,
            Phase::Probation,
            Phase::Done,
        ],
    ),
    (Scenario::Bad, &[Phase::Activation, Phase::Probation, Phase::GoingBack]),
    (Scenario::NextBoot, &[Phase::Profile, Phase::BootLoader, Phase::Done]),
];

/// How soon the guest's kernel writes by itself what nothing asked it to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writeback {
    /// After 30 s, as Linux does: a cut loses whole files.
    Late,
    /// Within a second: a cut loses some files and not others.
    Early,
}

/// A cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) scenario: Scenario,
    pub(crate) phase: Phase,
    /// From when the phase was seen to begin.
    pub(crate) delay: Duration,
    pub(crate) writeback: Writeback,
    /// From when the guest was started anew until a second cut, in the boot that repairs the first one.
    pub(crate) second: Option<Duration>,
}

/// When the second cut of a boot comes at the latest: the boot takes some ten seconds.
const LAST_SECOND_CUT: usize = 18_000;

/// That many points, so that each phase of each scenario comes equally often.
pub(crate) fn points(seed: u64, count: usize) -> Vec<Point> {
    let mut random = Seeded::new(seed);
    let mut left = Vec::new();
    let mut next = || {
        if left.is_empty() {
            left = PHASES.iter().flat_map(|(scenario, all)| all.iter().map(|phase| (*scenario, *phase))).collect();
        }
        let (scenario, phase) = left.swap_remove(random.below(left.len()));
        let milliseconds = |number: usize| Duration::from_millis(u64::try_from(number).unwrap());
        let delay = milliseconds(random.below(usize::try_from(phase.length().as_millis()).unwrap()));
        let writeback = *random.pick(&[Writeback::Late, Writeback::Early]);
        let second = (random.below(5) == 0).then(|| milliseconds(random.below(LAST_SECOND_CUT)));
        Point { scenario, phase, delay, writeback, second }
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn points_follow_from_their_seed_and_reach_every_phase() {
    assert_eq!(points(7, 40), points(7, 40));
    assert_ne!(points(7, 40), points(8, 40));
    for (scenario, phases) in PHASES {
        for phase in phases {
            assert!(points(7, 13).iter().any(|point| (point.scenario, point.phase) == (scenario, *phase)));
        }
    }
}
