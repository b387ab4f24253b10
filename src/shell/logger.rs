//! The `log` crate over the host's log. The SDK's own logger panics when the host refuses.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::abi;

struct HostLogger;

impl Log for HostLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Trace => 0,
            Level::Debug => 1,
            Level::Info => 2,
            Level::Warn => 3,
            Level::Error => 4,
        };
        match record.args().as_str() {
            Some(text) => abi::log(level, text),
            None => abi::log(level, &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

/// Sends the `log` macros to the host.
pub(super) fn install() {
    // Fails only when a logger is installed already, which then is this one.
    let _ = log::set_logger(&HostLogger);
    log::set_max_level(LevelFilter::Info);
}

/// Takes over the level that the host shows now, so that lines nobody sees are not made.
pub(super) fn follow_host_level() {
    let filter = match abi::log_level() {
        Ok(0) => LevelFilter::Trace,
        Ok(1) => LevelFilter::Debug,
        Ok(3) => LevelFilter::Warn,
        Ok(4) => LevelFilter::Error,
        Ok(5) => LevelFilter::Off,
        Ok(_) | Err(_) => LevelFilter::Info,
    };
    log::set_max_level(filter);
}
