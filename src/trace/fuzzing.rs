//! What must be true of every trace context that is read.

use super::TraceContext;

/// The header's value. What is read is written as the same context.
pub fn traceparent(data: &[u8]) {
    let Some(context) = TraceContext::parse(data) else { return };
    assert!(context.trace != 0 && context.span != 0);
    let written = context.header_value();
    assert_eq!(TraceContext::parse(written.as_bytes()), Some(context));
    assert_eq!(&data[3..52], &written.as_bytes()[3..52]);
}
