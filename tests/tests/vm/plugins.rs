//! Several plugins in one VM, of which Envoy does not say whose a request is.

use anyhow::{Result, ensure};
use serde_json::json;

use super::proxy::{Filter, Proxy, record};

/// P7: Envoy goes back to a plugin that still drains without a word, when its configuration comes again.
#[test]
fn a_plugin_that_is_gone_back_to_does_what_it_is_configured_to() -> Result<()> {
    let filter = Filter::load()?;
    let configured = |role: &str, header: &str| json!({ "protocol": 1, "role": role, "header": header });
    let first = json!({ "role": "edge", "header": "x-first" });
    let mut proxy = Proxy::configured(&filter, 1, Default::default(), first, record(10, "v2"))?;
    proxy.run(600)?;
    ensure!(!proxy.reports.is_empty(), "it has not reported");
    // The newest is another one; requests come to the first.
    proxy.configure_beside(0, &configured("caller", "x-second"))?;
    let forged = [("x-first", "v1"), ("x-second", "v1")];
    let flagged = proxy.begin(0, &[&[(":authority", "reviews")], forged.as_slice()].concat())?;
    for header in ["x-first", "x-second"] {
        let value = proxy.headers(0, flagged).get(header).cloned();
        ensure!(value.as_deref() == Some("v2"), "{header}: {value:?}");
    }
    let other = proxy.begin(0, &[&[(":authority", "ratings")], forged.as_slice()].concat())?;
    ensure!(proxy.headers(0, other).len() == 1, "what a client says is taken away: {:?}", proxy.headers(0, other));
    Ok(())
}
