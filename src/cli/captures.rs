//! `captures`: the captured pairs of a route, for `rehearse`.

use super::client::{CallError, Client, component};
use super::output::Output;
use crate::admin::types::CapturePage;

/// The captures of a route, one line of JSON each.
pub(crate) fn export(client: &Client, route: &str) -> Result<Output, CallError> {
    let (mut text, mut captures, mut after) = (String::new(), Vec::new(), 0);
    loop {
        let path = format!("/api/v2/routes/{}/captures?after={after}", component(route));
        let (page, _) = client.get::<CapturePage>(&path)?;
        let Some(next) = page.next.filter(|next| *next > after) else { break };
        after = next;
        for capture in page.captures {
            text.push_str(&capture.to_string());
            text.push('\n');
            captures.push(capture);
        }
    }
    Ok(Output { text, json: captures.into(), is_ok: true })
}
