use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use traffik_core::{Hits, Identity, ManualClock, OnError, Throttle};

use crate::remote::{Remote, memory};

/// Writes down everything, one line each.
#[derive(Clone, Default)]
struct Heard {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
    /// The spans that are entered, each by its place in `names`.
    entered: Arc<Mutex<Vec<(Id, &'static Metadata<'static>)>>>,
    known: Arc<Mutex<Vec<(Id, &'static Metadata<'static>)>>>,
}

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Heard {
    fn write(&self, what: &str, level: &Level, fields: impl FnOnce(&mut Fields)) {
        let mut written = Fields(format!("{level} {what}"));
        fields(&mut written);
        self.lines.lock().unwrap().push(written.0);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        matches!(metadata.target(), "traffik" | "test")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = Id::from_u64(1 + self.spans.fetch_add(1, Ordering::Relaxed));
        self.known
            .lock()
            .unwrap()
            .push((id.clone(), span.metadata()));
        self.write(span.metadata().name(), span.metadata().level(), |fields| {
            span.record(fields);
        });
        id
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.write("record", &Level::TRACE, |fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.write("event", event.metadata().level(), |fields| {
            event.record(fields);
        });
    }

    fn enter(&self, span: &Id) {
        let known = self.known.lock().unwrap();
        let found = known.iter().find(|(id, _)| id == span).unwrap();
        self.entered.lock().unwrap().push(found.clone());
    }

    fn exit(&self, span: &Id) {
        self.entered.lock().unwrap().retain(|(id, _)| id != span);
    }

    fn current_span(&self) -> tracing_core::span::Current {
        match self.entered.lock().unwrap().last() {
            Some((id, metadata)) => tracing_core::span::Current::new(id.clone(), metadata),
            None => tracing_core::span::Current::none(),
        }
    }
}

#[test]
fn a_denial_was_not_told_and_the_span_of_the_request_did_not_know() {
    let heard = Heard::default();
    let _guard = tracing::subscriber::set_default(heard.clone());
    let backend = memory(&ManualClock::default());
    let throttle = |name: &str, rate: &str| {
        let builder = Throttle::builder(name).rate(rate);
        builder.backend(backend.clone()).build().unwrap()
    };
    let (few, many) = (throttle("few", "1/day"), throttle("many", "100/day"));
    let ann = Identity::of("ann");
    let span = tracing::info_span!(
        target: "test",
        "request",
        throttle = tracing::field::Empty,
        outcome = tracing::field::Empty
    );
    heard.take();
    span.in_scope(|| few.hit_now(&ann).unwrap().is_allowed());
    assert_eq!(
        heard.take(),
        [
            "TRACE record throttle=\"few\"",
            "TRACE record outcome=\"admitted\""
        ],
        "an admission is no event"
    );
    let _ = span.in_scope(|| {
        let hits = Hits::from_iter([(&few, &ann), (&many, &ann)]);
        hits.try_decide().unwrap().unwrap()
    });
    let [throttle, outcome, event] = &heard.take()[..] else {
        panic!("one event, of whoever denied");
    };
    assert_eq!(throttle, "TRACE record throttle=\"few\"");
    assert_eq!(outcome, "TRACE record outcome=\"denied\"");
    assert!(
        event.starts_with(
            "DEBUG event message=denied throttle=\"few\" outcome=\"denied\" limit=1 wait_us="
        ),
        "{event}"
    );
    assert!(
        event.ends_with("degraded=false") && !event.contains("ann"),
        "{event}"
    );
}

#[tokio::test]
async fn changes_of_state_were_not_told() {
    let heard = Heard::default();
    let _guard = tracing::subscriber::set_default(heard.clone());
    let remote = Remote::new();
    let throttle = Throttle::builder("api")
        .rate("1/day")
        .on_error(OnError::Raise);
    let throttle = throttle.backend(remote.clone()).build().unwrap();
    remote.fail(true);
    let ann = Identity::of("ann");
    assert!(throttle.hit(&ann).await.is_err());
    let breaker = traffik_core::CircuitBreaker::builder().name("redis");
    let breaker = breaker.build().unwrap();
    breaker.force_open();
    breaker.force_close();
    let lines = heard.take();
    let told = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(
        told(
            "WARN event message=the backend fails, its error policy decides of=\"throttle `api`\""
        ),
        "{lines:?}"
    );
    assert!(told("DEBUG decide throttle=\"api\""), "{lines:?}");
    assert!(told("TRACE record outcome=\"failed\""), "{lines:?}");
    for (from, to) in [("closed", "open"), ("open", "closed")] {
        let change = format!(
            "WARN event message=circuit breaker changed breaker=\"redis\" from={from} to={to}"
        );
        assert!(told(&change), "{lines:?}");
    }
}
