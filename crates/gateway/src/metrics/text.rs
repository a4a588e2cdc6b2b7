//! Text format of Prometheus, version 0.0.4.
//!
//! It is the older of the two formats. All scrapers accept it without negotiation, and Prometheus without configuration.

use std::fmt::{Display, Write as _};

use diorama_core::dio::Times;

/// Media type of the format, which Prometheus 3 requires.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

/// Samples of one metric. They are written together, after the metric's help and type.
pub(crate) struct MetricFamily<'a> {
    out: &'a mut String,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    begun: bool,
}

impl Text {
    /// Adds a gauge, which goes up and down.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str) -> MetricFamily<'_> {
        self.family(name, "gauge", help)
    }

    /// Adds a counter, which only grows until the process ends.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str) -> MetricFamily<'_> {
        self.family(name, "counter", help)
    }

    /// Adds a histogram of durations.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &'static str) -> MetricFamily<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> MetricFamily<'_> {
        MetricFamily { out: &mut self.0, name, kind, help, begun: false }
    }

    /// Returns the page.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

impl MetricFamily<'_> {
    /// Writes one value.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes one histogram.
    pub(crate) fn times(&mut self, labels: &[(&str, &str)], times: &Times) {
        for (bound, count) in &times.buckets {
            self.line("_bucket", labels, Some(&bound.as_secs_f64()), count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), times.count);
        self.line("_sum", labels, None, times.total.as_secs_f64());
        self.line("_count", labels, None, times.count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&dyn Display>, value: impl Display) {
        if !std::mem::replace(&mut self.begun, true) {
            let _ = writeln!(self.out, "# HELP {0} {1}\n# TYPE {0} {2}", self.name, self.help, self.kind);
        }
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels {
            let _ = write!(self.out, "{before}{name}=\"{}\"", escaped(value));
            before = ',';
        }
        if let Some(bound) = bound {
            let _ = write!(self.out, "{before}le=\"{bound}\"");
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        // Writing to a String does not fail.
        let _ = writeln!(self.out, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::dio::Histogram;
    use std::time::Duration;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut text = Text::default();
        let mut family = text.gauge("rows", "Rows.");
        family.sample(&[("dio", "a\"b\\c\nd"), ("x", "y")], 0.5);
        family.sample(&[], 7);
        assert_eq!(
            text.finish(),
            "# HELP rows Rows.\n# TYPE rows gauge\nrows{dio=\"a\\\"b\\\\c\\nd\",x=\"y\"} 0.5\nrows 7\n"
        );
    }

    #[test]
    fn a_family_without_samples_is_left_out_and_a_histogram_ends_with_the_total() {
        let mut text = Text::default();
        text.counter("nothing_total", "Nothing.");
        let histogram = Histogram::default();
        histogram.add(Duration::from_millis(3));
        text.histogram("took_seconds", "Time.").times(&[("dio", "a")], &histogram.read());
        let text = text.finish();
        assert!(!text.contains("nothing"));
        assert!(text.contains(
            "took_seconds_bucket{dio=\"a\",le=\"0.0025\"} 0\ntook_seconds_bucket{dio=\"a\",le=\"0.005\"} 1\n"
        ));
        assert!(
            text.ends_with("le=\"+Inf\"} 1\ntook_seconds_sum{dio=\"a\"} 0.003\ntook_seconds_count{dio=\"a\"} 1\n"),
            "{text}"
        );
    }
}
