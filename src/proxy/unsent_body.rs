//! Copies the body of a call that was certainly not sent, because its service cannot be reached.
//!
//! By a value in its body a call may be attributed to its request (`egress.correlate`). Nobody has read the body when
//! the connection fails. Without the body, the call would count as one that any request in flight could have made, and
//! the effects of none of these requests would be judged. So what legacy has sent, or sends shortly, is read while
//! legacy gets its 502.
//!
//! Always true: the 502 does not wait for this reading, which takes [`READ_WITHIN`] at most; no more is kept than the
//! copy may have.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;

use super::body_copy::BodyCopy;
use super::request_body::RequestBody;

/// How long the rest of a body is waited for.
const READ_WITHIN: Duration = Duration::from_millis(500);

/// Reads the rest of a body, which is copied as it is read. Stops at the body's end, when the body is larger than the
/// copy may be, or after [`READ_WITHIN`].
pub(super) async fn read_to_copy(body: RequestBody, copy: &Arc<Mutex<BodyCopy>>) {
    let is_too_large = || copy.lock().unwrap_or_else(PoisonError::into_inner).too_large;
    let read = async {
        let mut body = pin!(body);
        while let Some(Ok(_)) = body.frame().await {
            if is_too_large() {
                return;
            }
        }
    };
    // If the rest takes longer, the body stays unknown.
    let _ = tokio::time::timeout(READ_WITHIN, read).await;
}
