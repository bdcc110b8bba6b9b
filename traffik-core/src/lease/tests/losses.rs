use std::time::Duration;

use super::thousand;
use crate::lease::simulation::Scene;
use crate::{Gcra, LeakyBucket, Rate, TokenBucket, TokenBucketWithDebt};

/// Of some values, the one that is a seed's turn.
fn turn<T: Copy>(seed: u64, every: u64, of: &[T]) -> T {
    of[usize::try_from(seed / every).unwrap() % of.len()]
}

fn adverse(seed: u64) -> Scene {
    let mut scene = thousand(&turn(seed, 1, &[[400, 250, 100], [3_000, 20, 700]]));
    scene.rate = turn(
        seed,
        1,
        &[
            Rate::per_second(300),
            Rate::per_second(60),
            Rate::literal("50/100ms"),
        ],
    );
    scene.seed = seed;
    scene.seconds = 2;
    scene.lost = turn(seed, 2, &[0, 20, 200]);
    scene.delay = Duration::from_millis(turn(seed, 3, &[1, 40, 400]));
    scene.off_ppm = turn(seed, 5, &[0, 1_000, -1_000]);
    let length = Duration::from_millis(turn(seed, 1, &[200, 1_000, 400]));
    scene.lease = scene.lease.length(length);
    scene.lease = scene.lease.period(Duration::from_millis(100));
    scene
}

/// Questions and answers are late or lost, and clocks are off by a thousandth.
#[test]
fn no_interval_holds_more_than_the_bound() {
    let mut lent = 0;
    for seed in 0..30 {
        let scene = adverse(seed);
        let outcome = scene.play();
        lent += outcome.infos.iter().map(|info| info.lent).sum::<u64>();
        let beyond = scene.beyond(&outcome, scene.bucket());
        assert_eq!(beyond, 0, "seed {seed}");
    }
    assert!(lent > 1_000, "{lent}");
}

#[test]
fn nor_for_the_other_buckets() {
    let rate = Rate::per_second(300);
    let tolerance = Duration::from_millis(500);
    for (at, scene) in [
        Scene::new(rate, LeakyBucket::new(), &[400, 200]),
        Scene::new(
            rate,
            TokenBucketWithDebt::new().burst(100).max_debt(50),
            &[400, 200],
        ),
        Scene::new(rate, TokenBucket::new().burst(60), &[400, 200]),
        Scene::new(rate, Gcra::new().burst_tolerance(tolerance), &[400, 200]),
        Scene::new(
            rate,
            Gcra::new().burst_tolerance(tolerance).strict(),
            &[400, 200],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut scene = scene;
        scene.seconds = 3;
        scene.lost = 20;
        let outcome = scene.play();
        let burst = [300, 150, 60, 151, 151][at];
        let bound = |us| burst + rate.earned_in(crate::Span::from_micros(us));
        assert_eq!(scene.beyond(&outcome, bound), 0, "{:?}", scene.strategy);
        let local: u64 = outcome.infos.iter().map(|info| info.local).sum();
        assert!(
            local > outcome.hits.len() as u64 / 2,
            "{:?}",
            scene.strategy
        );
    }
}
