//! What the controller writes of the Gateway API and what it makes of what others wrote, on a real API server
//! with its own definitions. No traffic: that is for the mesh.

use anyhow::{Context, Result, ensure};
use harness::kube::istio::{
    LIMIT, PLUGIN, beside, condition, controller, flag, get, held, install_istio, patch, reaches, start,
};
use harness::kube::{Cluster, gateway_api_crds, story};
use harness::wait_for;
use serde_json::{Value, json};

const NAME: &str = "versionflag-reviews-9080";

fn by_gateway_api() -> Value {
    let mut flag = flag("reviews");
    flag["spec"]["routing"] = json!({ "provider": "GatewayAPI" });
    flag
}

/// The versions of the routes, and where the rest goes. All rules have names that say so.
async fn routes(cluster: &Cluster<'_>) -> Result<(Vec<Value>, String)> {
    let found = get(cluster, "httproute", NAME).await?;
    let parent = &found["spec"]["parentRefs"];
    assert_eq!(*parent, json!([{ "group": "", "kind": "Service", "name": "reviews", "port": 9080 }]));
    let mut rules = found["spec"]["rules"].as_array().context("no rules")?.clone();
    let to = |rule: &Value| rule["backendRefs"][0]["name"].as_str().unwrap_or_default().to_owned();
    let default = to(&rules.pop().context("no default")?).replace("reviews-", "");
    let marked: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let version = &rule["matches"][0]["headers"][0]["value"];
            assert_eq!(to(rule), format!("reviews-{}", version.as_str().unwrap_or_default()), "{rule}");
            version.clone()
        })
        .collect();
    let versions: Vec<&str> = marked.iter().filter_map(Value::as_str).collect();
    for (index, rule) in rules.iter().enumerate() {
        assert_eq!(rule["name"], format!("versionflag.{index}.{default}.{}", versions.join(".")));
    }
    Ok((marked, default))
}

async fn waits_for_routes(cluster: &Cluster<'_>, versions: &[&str], default: &str) -> Result<()> {
    wait_for(&format!("routes to {versions:?}, by default to {default}"), LIMIT, async || {
        let (found, rest) = routes(cluster).await?;
        ensure!(found == versions && rest == default, "{found:?} {rest}");
        Ok(())
    })
    .await
}

/// The snippet of a condition whose message has this in it.
async fn snippet(cluster: &Cluster<'_>, reason: &str, words: &str) -> Result<Value> {
    wait_for(words, LIMIT, async || {
        let one = condition(cluster, "reviews", "RoutesReady", reason).await?;
        let message = one["message"].as_str().unwrap_or_default();
        ensure!(message.contains(words), "{message}");
        let (_, yaml) = message.split_once("It needs:\n").with_context(|| format!("no snippet: {message}"))?;
        Ok(serde_saphyr::from_str::<Value>(yaml)?)
    })
    .await
}

/// Whether the controller may do this.
async fn can(cluster: &Cluster<'_>, verb: &str, resource: &str) -> bool {
    let account = "system:serviceaccount:versionflag:versionflag";
    cluster.kubectl(&["auth", "can-i", verb, resource, "--as", account, "--namespace=shop"]).await.is_ok()
}

async fn replicas(cluster: &Cluster<'_>, version: &str) -> Result<Value> {
    Ok(get(cluster, "deployment", &format!("reviews-{version}")).await?["spec"]["replicas"].clone())
}

#[test]
fn a_switch_writes_a_route_and_a_service_for_each_version() {
    story("gateway-switch", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.apply(&by_gateway_api().to_string()).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        // A cluster without the kinds says so, and goes on when it has them.
        let missing = condition(cluster, "reviews", "Stalled", "GatewayApiMissing").await?;
        let message = missing["message"].as_str().unwrap_or_default();
        assert!(message.contains("install the CRDs of the Gateway API"), "{message}");
        cluster.install_crds(&gateway_api_crds()?).await?;
        beside(cluster, async {
            let refused = condition(cluster, "reviews", "RoutesReady", "RoutesNotWritten").await?;
            assert!(refused["message"].as_str().is_some_and(|it| it.contains("services")), "{refused}");
            let route = "httproutes.gateway.networking.k8s.io";
            for (verb, resource, may) in [
                ("watch", route, true),
                ("list", "grpcroutes.gateway.networking.k8s.io", true),
                ("patch", route, false),
                ("create", "services", false),
            ] {
                assert_eq!(can(cluster, verb, resource).await, may, "{verb} {resource}");
            }
            cluster.apply_manifests("kubernetes/istio/gateway-api").await?;
            for (verb, resource, may) in [
                ("create", route, true),
                ("patch", route, true),
                ("create", "services", true),
                ("patch", "services", true),
                ("delete", route, false),
                ("delete", "services", false),
            ] {
                assert_eq!(can(cluster, verb, resource).await, may, "{verb} {resource}");
            }
            reaches(cluster, "reviews", "Stable", "v1").await?;
            waits_for_routes(cluster, &["v1"], "v1").await?;
            condition(cluster, "reviews", "RoutesReady", "Written").await?;
            let service = get(cluster, "service", "reviews-v1").await?;
            assert_eq!(service["spec"]["selector"], json!({ "app": "reviews", "version": "v1" }));
            let record =
                &get(cluster, "trafficextension", "versionflag").await?["spec"]["wasm"]["pluginConfig"]["flags"][0];
            let cluster_name = "outbound|9080||reviews-v1.shop.svc.cluster.local";
            assert_eq!(record["members"][0]["clusters"]["v1"], json!([cluster_name]));

            patch(cluster, "reviews", json!({ "promotion": { "mode": "Manual" }, "version": "v2" })).await?;
            reaches(cluster, "reviews", "AwaitingPromotion", "v1").await?;
            waits_for_routes(cluster, &["v1", "v2"], "v1").await?;
            let more = json!({ "promotion": { "mode": "Automatic" }, "cleanup": { "retainFor": "4s" } });
            patch(cluster, "reviews", more).await?;
            reaches(cluster, "reviews", "Retaining", "v2").await?;
            waits_for_routes(cluster, &["v1", "v2"], "v2").await?;
            reaches(cluster, "reviews", "Stable", "v2").await?;
            assert_eq!(replicas(cluster, "v1").await?, 0);
            waits_for_routes(cluster, &["v2"], "v2").await?;
            let none = cluster.kubectl(&["get", "virtualservices,destinationrules", "-A", "-o=name"]).await?;
            assert_eq!(none, "");

            // What somebody deletes or edits is put right, and is not written otherwise.
            let selector = r#"{"spec":{"selector":{"version":"v9"}}}"#;
            cluster.kubectl(&["patch", "service", "reviews-v2", "--namespace=shop", "--patch", selector]).await?;
            cluster.kubectl(&["delete", "httproute", NAME, "--namespace=shop"]).await?;
            waits_for_routes(cluster, &["v2"], "v2").await?;
            wait_for("the Service as it was", LIMIT, async || {
                let service = get(cluster, "service", "reviews-v2").await?;
                ensure!(service["spec"]["selector"]["version"] == "v2", "{service}");
                Ok(())
            })
            .await?;

            // Another route of the Service, and a VirtualService, which Istio goes by: nothing is started.
            let theirs = json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "theirs", "namespace": "shop" },
                "spec": {
                    "parentRefs": [{ "group": "", "kind": "Service", "name": "reviews" }],
                    "rules": [{ "backendRefs": [{ "name": "reviews", "port": 9080 }] }],
                },
            });
            cluster.apply(&theirs.to_string()).await?;
            patch(cluster, "reviews", json!({ "version": "v1" })).await?;
            let conflict = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
            let message = conflict["message"].as_str().unwrap_or_default();
            assert!(message.starts_with("HTTPRoute shop/theirs has routes for Service reviews too"), "{message}");
            held(cluster, "reviews", "Coexisting", "v2", &conflict["message"]).await?;
            assert_eq!(replicas(cluster, "v1").await?, 0, "nothing is started");
            let first = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": { "name": "first", "namespace": "shop" },
                "spec": { "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "reviews" } }] }] },
            });
            cluster.apply(&first.to_string()).await?;
            cluster.kubectl(&["delete", "httproute", "theirs", "--namespace=shop"]).await?;
            wait_for("the VirtualService to be named", LIMIT, async || {
                let one = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
                ensure!(
                    one["message"].as_str().is_some_and(|it| it.starts_with("VirtualService shop/first has")),
                    "{one}"
                );
                Ok(())
            })
            .await?;
            cluster.kubectl(&["delete", "virtualservice", "first", "--namespace=shop"]).await?;
            reaches(cluster, "reviews", "Stable", "v1").await?;
            Ok(())
        })
        .await
    });
}

/// The route of the one Gateway.
async fn attached(cluster: &Cluster<'_>) -> Result<Value> {
    let all = cluster.kubectl(&["get", "httproutes", "--namespace=shop", "--output=json"]).await?;
    let mut all: Value = serde_json::from_str(&all)?;
    let all = all["items"].as_array_mut().context("no routes")?;
    let name = |route: &Value| route["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    all.retain(|route| name(route).starts_with("versionflag-reviews-9080-gateway-"));
    ensure!(all.len() == 1, "{all:?}");
    Ok(all.remove(0))
}

/// Each rule of it: the version that is asked for, its path, and where it leads.
fn rules(route: &Value) -> Vec<[&str; 3]> {
    let rules = route["spec"]["rules"].as_array().into_iter().flatten();
    let rule = rules.map(|rule| {
        let condition = &rule["matches"][0];
        [&condition["headers"][0]["value"], &condition["path"]["value"], &rule["backendRefs"][0]["name"]]
    });
    rule.map(|all| all.map(|value| value.as_str().unwrap_or_default())).collect()
}

/// Waits for these rules.
async fn waits_for_rules(cluster: &Cluster<'_>, expected: &[[&str; 3]]) -> Result<Value> {
    wait_for(&format!("a route with {expected:?}"), LIMIT, async || {
        let route = attached(cluster).await?;
        ensure!(rules(&route) == expected, "{route}");
        Ok(route)
    })
    .await
}

/// What a Gateway would say of the route.
async fn answers(cluster: &Cluster<'_>, accepted: &str, why: &str) -> Result<()> {
    let route = attached(cluster).await?;
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Because", "message": why,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let said = json!({ "status": { "parents": [{
        "parentRef": route["spec"]["parentRefs"][0], "controllerName": "istio.io/gateway-controller",
        "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", "True")],
    }] } });
    let name = route["metadata"]["name"].as_str().context("no name")?.to_owned();
    let patch = ["patch", "httproute", &name, "--namespace=shop", "--subresource=status", "--type=merge", "--patch"];
    cluster.kubectl(&[&patch[..], &[&said.to_string()]].concat()).await.map(drop)
}

#[test]
fn routes_are_attached_to_a_gateway_and_flipped_like_the_others() {
    story("gateway-attached", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.install_crds(&gateway_api_crds()?).await?;
        cluster.apply_manifests("kubernetes/istio/gateway-api").await?;
        cluster.kubectl(&["create", "namespace", "edge"]).await?;
        cluster.kubectl(&["label", "namespace", "edge", "versionflag.io/callers=shop"]).await?;
        let with = |gateway: Value| {
            let mut flag = by_gateway_api();
            flag["spec"]["routing"]["gateways"] = json!([gateway]);
            flag
        };
        for (field, value, why) in [
            ("path", json!("reviews"), "\"reviews\" is not a path"),
            ("hostnames", json!(["Shop.example"]), "\"Shop.example\" is not a hostname"),
            ("port", json!(0), "spec.routing.gateways[0].port"),
        ] {
            let mut gateway = json!({ "name": "public" });
            gateway[field] = value;
            let refused = cluster.apply(&with(gateway).to_string()).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let public = json!({
            "name": "public", "namespace": "edge", "sectionName": "https", "hostnames": ["shop.example"],
            "path": "/reviews",
        });
        let mut by_istio = with(public.clone());
        by_istio["spec"]["routing"]["provider"] = json!("Istio");
        cluster.apply(&by_istio.to_string()).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        let invalid = condition(cluster, "reviews", "Stalled", "InvalidSpec").await?;
        let message = invalid["message"].as_str().unwrap_or_default();
        assert!(message.contains("spec.routing.gateways is for provider GatewayAPI"), "{message}");
        beside(cluster, async {
            patch(cluster, "reviews", json!({ "routing": { "provider": "GatewayAPI" } })).await?;
            // No Istio here says anything of it.
            let unknown = condition(cluster, "reviews", "RoutesReady", "GatewayUnknown").await?;
            let message = unknown["message"].as_str().unwrap_or_default();
            assert!(
                message.starts_with("nobody answers for Gateway edge/public, to which HTTPRoute shop/"),
                "{message}"
            );
            let route = attached(cluster).await?;
            let parent = json!([{
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge", "name": "public",
                "sectionName": "https",
            }]);
            assert_eq!(
                (&route["spec"]["parentRefs"], &route["spec"]["hostnames"]),
                (&parent, &json!(["shop.example"]))
            );
            assert_eq!(rules(&route), [["v1", "/reviews", "reviews-v1"], ["", "/reviews", "reviews-v1"]]);
            // Its pods have the filter.
            let plugins =
                ["get", "trafficextensions", "--namespace=edge", "--output=jsonpath={.items[*].spec.selector}"];
            let selected = cluster.kubectl(&plugins).await?;
            assert_eq!(selected, r#"{"matchLabels":{"gateway.networking.k8s.io/gateway-name":"public"}}"#);
            answers(cluster, "False", "no listener lets it in").await?;
            let refused = condition(cluster, "reviews", "RoutesReady", "GatewayRefused").await?;
            let message = refused["message"].as_str().unwrap_or_default();
            assert!(message.ends_with("(Because): no listener lets it in"), "{message}");
            answers(cluster, "True", "").await?;
            condition(cluster, "reviews", "RoutesReady", "Written").await?;

            patch(cluster, "reviews", json!({ "promotion": { "mode": "Manual" }, "version": "v2" })).await?;
            reaches(cluster, "reviews", "AwaitingPromotion", "v1").await?;
            let both = |default| {
                [["v1", "/reviews", "reviews-v1"], ["v2", "/reviews", "reviews-v2"], ["", "/reviews", default]]
            };
            waits_for_rules(cluster, &both("reviews-v1")).await?;
            let more = json!({ "promotion": { "mode": "Automatic" }, "cleanup": { "retainFor": "4s" } });
            patch(cluster, "reviews", more).await?;
            reaches(cluster, "reviews", "Retaining", "v2").await?;
            waits_for_rules(cluster, &both("reviews-v2")).await?;
            reaches(cluster, "reviews", "Stable", "v2").await?;
            let alone = [["v2", "/reviews", "reviews-v2"], ["", "/reviews", "reviews-v2"]];
            waits_for_rules(cluster, &alone).await?;

            // Other hostnames are another spec of the same route, also none.
            let mut open = public.clone();
            open["hostnames"] = json!([]);
            patch(cluster, "reviews", json!({ "routing": { "gateways": [open] } })).await?;
            wait_for("the route without hostnames", LIMIT, async || {
                let route = attached(cluster).await?;
                ensure!(route["spec"]["hostnames"].as_array().is_none_or(Vec::is_empty), "{route}");
                Ok(())
            })
            .await?;
            condition(cluster, "reviews", "RoutesReady", "Written").await?;

            // A route of somebody else's for the same Gateway, past the flag.
            let theirs = json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "theirs", "namespace": "shop" },
                "spec": {
                    "parentRefs": [{ "name": "public", "namespace": "edge" }],
                    "rules": [{ "backendRefs": [{ "name": "reviews", "port": 9080 }] }],
                },
            });
            cluster.apply(&theirs.to_string()).await?;
            let past = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
            let message = past["message"].as_str().unwrap_or_default();
            assert!(message.starts_with("HTTPRoute shop/theirs leads past the flag of Service reviews"), "{message}");
            cluster.kubectl(&["delete", "httproute", "theirs", "--namespace=shop"]).await?;
            condition(cluster, "reviews", "RoutesReady", "Written").await?;

            // Taken out of the spec, the route stays, and is named until somebody deletes it.
            patch(cluster, "reviews", json!({ "routing": { "gateways": null } })).await?;
            let left = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
            let message = left["message"].as_str().unwrap_or_default();
            assert!(message.contains("spec.routing.gateways does not ask for it any more: delete it"), "{message}");
            let name = attached(cluster).await?["metadata"]["name"].as_str().context("no name")?.to_owned();
            cluster.kubectl(&["delete", "httproute", &name, "--namespace=shop"]).await?;
            condition(cluster, "reviews", "RoutesReady", "Written").await?;
            Ok(())
        })
        .await
    });
}

#[test]
fn what_is_missing_in_the_operators_routes_is_given() {
    story("gateway-provided", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.install_crds(&gateway_api_crds()?).await?;
        let mut provided = by_gateway_api();
        provided["spec"]["routing"]["management"] = json!("UserProvided");
        cluster.apply(&provided.to_string()).await?;
        // Without the right to write routes.
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        beside(cluster, async {
            // Each snippet is what it says it is: applied, it leads to the next.
            let service = snippet(cluster, "RouteMissing", "there is no Service for v1 of Service reviews").await?;
            cluster.apply(&service.to_string()).await?;
            let route = snippet(cluster, "RouteMissing", "there is no HTTPRoute for port 9080").await?;
            cluster.apply(&route.to_string()).await?;
            condition(cluster, "reviews", "RoutesReady", "Found").await?;
            reaches(cluster, "reviews", "Stable", "v1").await?;

            patch(cluster, "reviews", json!({ "version": "v2" })).await?;
            let service = snippet(cluster, "RouteMissing", "there is no Service for v2 of Service reviews").await?;
            assert_eq!(replicas(cluster, "v2").await?, 0, "nothing is started");
            cluster.apply(&service.to_string()).await?;
            let more = snippet(cluster, "RouteMissing", "does not resolve v2").await?;
            let mut route = route;
            route["spec"]["rules"].as_array_mut().context("rules")?.insert(0, more["rules"][0].clone());
            cluster.apply(&route.to_string()).await?;
            // It flips. The old version stays while requests without a version go there.
            let default = snippet(cluster, "RouteDefault", "without a version do not go to v2").await?;
            reaches(cluster, "reviews", "Settling", "v2").await?;
            assert_eq!(replicas(cluster, "v1").await?, 1);
            let rules = route["spec"]["rules"].as_array_mut().context("rules")?;
            *rules.last_mut().context("a default")? = default["rules"][0].clone();
            cluster.apply(&route.to_string()).await?;
            reaches(cluster, "reviews", "Stable", "v2").await?;
            let all = cluster.kubectl(&["get", "httproutes,services", "--namespace=shop", "-o=name"]).await?;
            assert_eq!(
                all.lines().filter(|name| name.contains("reviews")).count(),
                4,
                "none is the controller's: {all}"
            );
            Ok(())
        })
        .await
    });
}
