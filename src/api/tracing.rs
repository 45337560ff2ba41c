//! Spans of the `tracing` crate in the timeline.
//!
//! Invariant: a span is a box for each time it was entered, on the thread that entered it, closed where it was left; so boxes
//! nest as the code did. Left out: its events, and filtering, which other layers do.

use std::cell::RefCell;
use std::fmt::{Debug, Write};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::exec::events;
use crate::trace::NOT_RECORDED;

/// Bytes of a span's fields that are kept.
const FIELDS: usize = 200;

/// A layer that shows the spans of the `tracing` crate in the [`timeline`](crate::timeline()), nested in the box of the call that
/// entered them.
///
/// What it costs: some 100 ns each time a span is entered and left, and the formatting of its fields, of which 200 bytes
/// are kept. Nothing is recorded while no node is up. Give it a filter, as any layer, if a library's spans are too many.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt as _;
/// use tracing_subscriber::util::SubscriberInitExt as _;
///
/// tracing_subscriber::registry().with(mobula::TimelineLayer::new()).init();
/// let _mobula = mobula::init()?;
/// let _span = tracing::info_span!("load", batch = 7).entered();
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TimelineLayer(());

impl TimelineLayer {
    /// The layer.
    pub fn new() -> TimelineLayer {
        TimelineLayer(())
    }
}

thread_local! {
    /// Spans entered here and not left: their ids, and since when.
    static ENTERED: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A span's fields, as text.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.0.len() < FIELDS {
            let space = if self.0.is_empty() { "" } else { " " };
            let _ = write!(self.0, "{space}{}={value:?}", field.name());
            self.0.truncate(self.0.floor_char_boundary(FIELDS));
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TimelineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && !attributes.fields().is_empty()
        {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let begin = events::now();
        let _ = ENTERED.try_with(|entered| {
            if let Ok(mut entered) = entered.try_borrow_mut() {
                entered.push((id.into_u64(), begin));
            }
        });
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let begin = ENTERED.try_with(|entered| {
            let mut entered = entered.try_borrow_mut().ok()?;
            let at = entered.iter().rposition(|(e, _)| *e == id.into_u64())?;
            Some(entered.remove(at).1)
        });
        let Ok(Some(begin)) = begin else { return };
        if begin != NOT_RECORDED
            && let Some(span) = context.span(id)
        {
            let name = Metadata::name(span.metadata());
            let extensions = span.extensions();
            let fields = extensions.get::<Fields>();
            events::span(name, begin, fields.map(|f| f.0.as_str()));
        }
    }
}
