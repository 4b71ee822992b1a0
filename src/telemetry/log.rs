//! Log lines: to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, LogLevel};

/// The level in force; set once logging has started.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging for this process. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let (level, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // An error means that somebody (a test) has set up logging before: theirs stays.
    if tracing_subscriber::registry().with(level).with(lines.with_filter(filter_fn(is_news))).try_init().is_ok() {
        // Nobody else sets it.
        let _ = LEVEL.set(handle);
    }
}

/// What begins the names of this program's own rooms.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Whether it is worth a line. Of libraries only what went wrong is, at whatever level: what becomes of a call is told by whoever
/// knows what it was for, and some libraries write down by whose credentials they make it.
fn is_news(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::WARN || line.target().starts_with(OWN)
}

/// Changes what is logged from now on, if [`init`] has started logging.
pub fn set_level(level: LogLevel) {
    // An error means that the process is ending.
    let _ = LEVEL.get().map(|in_force| in_force.reload(filter(level)));
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}
