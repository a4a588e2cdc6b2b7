//! Startup progress printed at the terminal.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::say;
use crate::config::DioSpec;
use diorama_core::dio::Dio;

/// Waits until `dio` can be read; the library retries failures. Returns the seconds it took.
pub(super) async fn first_copy(dio: &Dio, started: Instant) -> f64 {
    // An error means that the Dio was closed first.
    let _ = dio.ready().await;
    started.elapsed().as_secs_f64()
}

/// Prints the pending first copies every second; never returns.
pub(super) async fn report(dios: &[Dio], started: Instant) {
    let mut second = interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        second.tick().await;
        for dio in dios.iter().filter(|dio| !dio.is_ready()) {
            let name = dio.name();
            let (status, seconds) = (dio.status(), started.elapsed().as_secs());
            match status.refresh_failed {
                Some(error) => say(format_args!("{name}: the source cannot be read; retrying: {error}")),
                // Most sources return their list as a whole, so there is no count before it arrives.
                None if status.rows == 0 => say(format_args!("{name}: reading the first copy, {seconds} s")),
                None => say(format_args!("{name}: storing the first copy, {} rows so far, {seconds} s", status.rows)),
            }
        }
    }
}

fn takes_writes(dio: &Dio) -> bool {
    let can = dio.master().capabilities();
    can.can_insert || can.can_update || can.can_delete
}

/// Prints one line per resource.
pub(super) fn table(dios: &[Dio], specs: &[DioSpec], seconds: &[f64], base: &str) {
    let mut lines = vec![["resource", "source", "rows", "seconds", "url", "writes kept"].map(String::from)];
    for ((dio, spec), seconds) in dios.iter().zip(specs).zip(seconds) {
        let status = dio.status();
        let kept = match (spec.write.is_some() || takes_writes(dio), status.durable) {
            (false, _) => "takes none",
            (true, true) => "on disk",
            (true, false) => "in memory",
        };
        lines.push([
            dio.name().to_string(),
            spec.source.describe(),
            status.rows.to_string(),
            format!("{seconds:.2}"),
            format!("{base}/{}", dio.name()),
            kept.to_string(),
        ]);
    }
    let widths: Vec<usize> =
        (0..6).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    say("ready");
}
