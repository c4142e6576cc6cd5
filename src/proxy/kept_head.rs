//! The head of a request without a body, kept while the request is sent, so that it can be sent again.
//!
//! Nearly every request over an idle connection keeps its head, and nearly no head is sent again, so the fields are
//! kept in a list rather than in a table, and the list of an earlier request of the same thread is used again. Always
//! true: the request that is sent again has the same fields in the same order.

use std::cell::Cell;

use http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::request_body::RequestBody;

/// A list with more room than this is not reused.
const SPARE_FIELDS_MAX: usize = 128;

thread_local! {
    static SPARE: Cell<Fields> = const { Cell::new(Vec::new()) };
}

type Fields = Vec<(HeaderName, HeaderValue)>;

/// The head of a request that is being sent, kept so that it can be sent again.
pub(super) struct KeptHead {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    fields: Fields,
}

impl KeptHead {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut fields = SPARE.take();
        fields.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            fields,
        }
    }

    /// Returns the request, to be sent again.
    pub(super) fn request(&mut self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions.clone();
        for (name, value) in self.fields.drain(..) {
            request.headers_mut().append(name, value);
        }
        request
    }
}

impl Drop for KeptHead {
    fn drop(&mut self) {
        self.fields.clear();
        if self.fields.capacity() <= SPARE_FIELDS_MAX {
            SPARE.set(std::mem::take(&mut self.fields));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_request_has_the_same_fields_in_order() {
        let request = Request::put("/a?b").header("x", "1").header("y", "2").header("x", "3").body(()).unwrap();
        for _ in 0..2 {
            let again = KeptHead::of(&request).request();
            assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
            assert_eq!(format!("{:?}", again.headers()), format!("{:?}", request.headers()));
        }
        let capacity = SPARE.take().capacity();
        assert!((3..=SPARE_FIELDS_MAX).contains(&capacity), "the list is used again: {capacity}");
    }
}
