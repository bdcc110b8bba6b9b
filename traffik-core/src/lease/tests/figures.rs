use super::thousand;
use crate::lease::simulation::{Outcome, Scene};
use crate::{FixedWindow, Rate, TokenBucket};

/// Trips per thousand hits, and what was admitted of a thousand that one strict node would admit.
fn figures(scene: &Scene, outcome: &Outcome) -> (u64, u64) {
    let trips = outcome.trips * 1_000 / outcome.hits.len() as u64;
    let admitted = outcome.admitted.len() as u64 * 1_000 / scene.strictly(outcome);
    (trips, admitted)
}

#[test]
fn below_the_limit_few_hits_need_a_trip_and_all_are_admitted() {
    for (limit, each, most) in [(10_000, 250, 50), (100_000, 2_500, 20), (2_000, 250, 50)] {
        let rate = Rate::per_second(limit);
        let mut scene = Scene::new(rate, TokenBucket::new(), &[each; 4]);
        scene.seconds = 5;
        let outcome = scene.play();
        let (trips, admitted) = figures(&scene, &outcome);
        assert!(trips <= most, "{limit}: {trips} of 1,000");
        assert_eq!(admitted, 1_000, "{limit}");
    }
}

#[test]
fn above_the_limit_little_is_lost_and_nothing_is_beyond() {
    for demands in [
        [300; 4],
        [1_500; 4],
        [640, 320, 160, 80],
        [3_200, 1_600, 800, 400],
    ] {
        let mut scene = thousand(&demands);
        scene.seconds = 5;
        let outcome = scene.play();
        let (trips, admitted) = figures(&scene, &outcome);
        assert!(trips <= 50, "{demands:?}: {trips} of 1,000");
        assert!(admitted >= 970, "{demands:?}: {admitted} of 1,000");
        assert_eq!(scene.beyond(&outcome, scene.bucket()), 0, "{demands:?}");
        let waits = scene.excess_waits(&outcome);
        assert!(waits.last() <= Some(&150_000), "{demands:?}: {waits:?}");
    }
}

#[test]
fn a_flash_crowd_after_idleness_gets_the_burst_and_no_more() {
    let mut scene = thousand(&[3_000; 8]);
    scene.seconds = 1;
    let outcome = scene.play();
    let (_, admitted) = figures(&scene, &outcome);
    assert!(admitted >= 950, "{admitted} of 1,000");
    assert_eq!(scene.beyond(&outcome, scene.bucket()), 0);
}

/// Windows, too, of which nothing is lent beyond the end.
#[test]
fn windows_hold_their_limit_each() {
    for (demands, most) in [
        // Of which 28 are those by which the nodes see that the key is hot.
        ([125; 4], 60),
        ([250; 4], 40),
        ([300; 4], 50),
        ([1_500; 4], 50),
        ([640, 320, 160, 80], 50),
        ([3_200, 1_600, 800, 400], 50),
    ] {
        let mut scene = Scene::new(Rate::per_second(1_000), FixedWindow, &demands);
        scene.seconds = 5;
        let outcome = scene.play();
        let (trips, admitted) = figures(&scene, &outcome);
        assert!(
            trips <= most && admitted >= 970,
            "{demands:?}: {trips}, {admitted}"
        );
        let window = |at: u64| at / 1_000_000;
        let certain = outcome.admitted.iter();
        let certain = certain.filter(|(asked, known)| window(*asked) == window(*known));
        let mut counts = std::collections::BTreeMap::new();
        for (asked, _) in certain {
            *counts.entry(window(*asked)).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| *count <= 1_000), "{counts:?}");
    }
}
