//! Attributes of CloudEvents in headers of one line.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Bytes that are encoded, with all that are not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Returns the value as HTTP and NATS carry it:
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values>.
pub(crate) fn encode(value: &[u8]) -> String {
    percent_encode(value, ENCODED).to_string()
}
