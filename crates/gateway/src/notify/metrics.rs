//! Metrics of notifications.

use super::NotifyState;
use super::notification::NotifyStatus;
use crate::metrics::text::Text;
use crate::state::GatewayState;

type Fill = fn(&NotifyStatus) -> u64;

const COUNTERS: [(&str, &str, Fill); 3] = [
    ("diorama_notify_delivered_total", "Messages that the receiver has taken.", |status| status.delivered),
    ("diorama_notify_failed_attempts_total", "Attempts that have failed.", |status| status.failed_attempts),
    ("diorama_notify_given_up_total", "Deliveries that have failed after their last attempt.", |status| {
        status.given_up
    }),
];

/// Writes the metrics of all notifications.
pub(crate) fn write(text: &mut Text, gateway: &GatewayState) {
    let all: Vec<_> = gateway.notifications.values().map(|own| (own, own.status())).collect();
    if all.is_empty() {
        return;
    }
    for (name, help, fill) in COUNTERS {
        let mut family = text.counter(name, help);
        all.iter().for_each(|(own, status)| family.sample(&[("notification", &own.name)], fill(status)));
    }
    let mut family = text.gauge("diorama_notify_waiting", "Deliveries that are queued, with those that have failed.");
    all.iter().for_each(|(own, status)| family.sample(&[("notification", &own.name)], status.waiting as f64));
    let mut family =
        text.gauge("diorama_notify_behind", "Events of the log that are not delivered or stored as deliveries.");
    for (own, status) in &all {
        let head = gateway.dios.get(own.dio.as_str()).map_or(0, |resource| resource.dio.log().ring().tail().seq);
        let behind = status.position.as_ref().map_or(0, |position| head.saturating_sub(position.seq));
        family.sample(&[("notification", &own.name)], behind as f64);
    }
    let mut family = text.gauge(
        "diorama_notify_active",
        "1 if messages are sent; 0 while the receiver rests or is gone, or the outbox is full.",
    );
    for (own, status) in &all {
        let active = status.state == NotifyState::Active;
        family.sample(&[("notification", &own.name)], f64::from(u8::from(active)));
    }
}
