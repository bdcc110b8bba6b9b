//! Histories for which no order was found, kept in files, so that they can be looked for again once the search was
//! mended: nobody records the same twice.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check::{Terms, check};
use super::event::{Event, parse};
use super::world::World;

/// Writes a history into a file of the directory `TRAFFIK_HISTORY_KEEP`, if there is one.
pub(super) fn keep(events: &[&Event], terms: Terms) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let Some(directory) = std::env::var_os("TRAFFIK_HISTORY_KEEP") else {
        return;
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}.txt", std::process::id());
    let mut text = first_line(terms);
    for (id, event) in events.iter().enumerate() {
        text += &event.question(id as u64);
        text += &event.answer(id as u64);
    }
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(Path::new(&directory).join(name), text).expect("a file");
}

/// Of fewer words than lines of events have.
fn first_line(terms: Terms) -> String {
    let Terms {
        by_store_time,
        forgets,
        steps_back,
        counts_first,
    } = terms;
    let flags = [by_store_time, forgets, steps_back, counts_first];
    let flags: String = flags
        .map(|flag| if flag { 'y' } else { 'n' })
        .iter()
        .collect();
    format!("terms {flags}\n")
}

fn read(text: &str) -> (Vec<Event>, Terms) {
    let flags = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("terms "));
    let flags: Vec<bool> = flags
        .expect("the terms")
        .chars()
        .map(|flag| flag == 'y')
        .collect();
    let terms = Terms {
        by_store_time: flags[0],
        forgets: flags[1],
        steps_back: flags[2],
        counts_first: flags[3],
    };
    (parse(text), terms)
}

/// `TRAFFIK_HISTORY_KEPT=directory cargo test -p traffik-tests -- --ignored kept_histories --nocapture`.
#[test]
#[ignore = "only what was kept"]
fn kept_histories_have_an_order() {
    let directory =
        std::env::var_os("TRAFFIK_HISTORY_KEPT").expect("TRAFFIK_HISTORY_KEPT is a directory");
    let world = World::new();
    let mut without = 0;
    for file in std::fs::read_dir(directory).expect("a directory") {
        let path = file.expect("a file").path();
        let (events, terms) = read(&std::fs::read_to_string(&path).expect("a text"));
        let found = check(&world, &events, terms);
        println!(
            "{}: {} of {} in an order, {} lost, {} charged, {} forgotten, {} unexplained, {} violations",
            path.display(),
            found.checked,
            events.len(),
            found.lost,
            found.charged,
            found.forgotten,
            found.unexplained,
            found.violations.len(),
        );
        found
            .violations
            .iter()
            .for_each(|story| println!("{story}"));
        without += found.unexplained + found.violations.len() as u64;
    }
    assert_eq!(without, 0, "without an order");
}

#[test]
fn what_was_kept_can_be_read() {
    let terms = Terms {
        forgets: true,
        ..Terms::default()
    };
    let text = first_line(terms) + "? 1 10 3:1:0\n! 1 20 unexecuted\n";
    let (events, read) = read(&text);
    assert_eq!(format!("{read:?}"), format!("{terms:?}"));
    assert_eq!(events.len(), 1);
}
