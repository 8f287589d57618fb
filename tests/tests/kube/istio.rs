//! What the controller writes for Istio and what it makes of what others wrote, on a real API server
//! with Istio's own definitions. No traffic: that is for the mesh.

use anyhow::{Context, Result, ensure};
use harness::client::Call;
use harness::kube::istio::{
    LIMIT, PLUGIN, SERVICE, beside, condition, controller, flag, get, held, install_istio, patch, reaches, start,
};
use harness::kube::{Cluster, story};
use harness::wait_for;
use serde_json::{Value, json};

/// The versions of the routes of a Service, and where the rest goes.
async fn routes(cluster: &Cluster<'_>, service: &str) -> Result<(Vec<Value>, Value)> {
    let found = get(cluster, "virtualservice", &format!("versionflag-{service}")).await?;
    let mut http = found["spec"]["http"].as_array().context("no routes")?.clone();
    let default = http.pop().context("no default")?["route"][0]["destination"]["subset"].clone();
    let marked = http.iter().map(|route| {
        let version = &route["match"][0]["headers"]["x-versionflag"]["exact"];
        assert_eq!(*version, route["route"][0]["destination"]["subset"], "{route}");
        version.clone()
    });
    Ok((marked.collect(), default))
}

async fn subsets(cluster: &Cluster<'_>, service: &str) -> Result<Vec<Value>> {
    let found = get(cluster, "destinationrule", &format!("versionflag-{service}")).await?;
    Ok(found["spec"]["subsets"].as_array().context("no subsets")?.iter().map(|one| one["name"].clone()).collect())
}

/// By name: epoch of every flag in the plugin.
async fn configured(cluster: &Cluster<'_>) -> Result<Vec<(String, u64)>> {
    let found = get(cluster, "trafficextension", "versionflag").await?;
    let flags = found["spec"]["wasm"]["pluginConfig"]["flags"].as_array().context("no flags")?.clone();
    let mut flags: Vec<_> = flags
        .iter()
        .map(|flag| (flag["name"].as_str().unwrap_or_default().to_owned(), flag["epoch"].as_u64().unwrap_or_default()))
        .collect();
    flags.sort();
    Ok(flags)
}

#[test]
fn a_switch_writes_routes_and_one_plugin_for_the_namespace() {
    story("istio-switch", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        for name in ["reviews", "ratings"] {
            cluster.apply(&flag(name).to_string()).await?;
        }
        let first = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        beside(cluster, async {
            for name in ["reviews", "ratings"] {
                reaches(cluster, name, "Stable", "v1").await?;
                condition(cluster, name, "RoutesReady", "Written").await?;
                wait_for("its routes", LIMIT, async || {
                    ensure!(routes(cluster, name).await? == (vec![json!("v1")], json!("v1")));
                    ensure!(subsets(cluster, name).await? == [json!("v1")]);
                    Ok(())
                })
                .await?;
            }
            let both = wait_for("both flags in one plugin", LIMIT, async || {
                let found = configured(cluster).await?;
                ensure!(found.len() == 2, "{found:?}");
                Ok(found)
            })
            .await?;
            assert_eq!(
                both.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
                ["shop/ratings", "shop/reviews"]
            );
            let plugin = get(cluster, "trafficextension", "versionflag").await?;
            assert_eq!(plugin["spec"]["wasm"]["failStrategy"], "FAIL_OPEN");
            assert_eq!(plugin["spec"]["wasm"]["url"], PLUGIN);
            let cluster_name = &plugin["spec"]["wasm"]["pluginConfig"]["service"]["cluster"];
            assert_eq!(*cluster_name, "outbound|7070||versionflag.versionflag.svc.cluster.local");
            let record = &plugin["spec"]["wasm"]["pluginConfig"]["flags"][0];
            assert_eq!((&record["namespace"], &record["versionLabel"]), (&json!("shop"), &json!("version")));
            assert!(record["members"][0]["selector"][0].as_str().is_some_and(|label| label.starts_with("app=")));
            assert_eq!(cluster.kubectl(&["get", "wasmplugins", "-A", "-o=name"]).await?, "", "never both");

            // Nothing is written twice, also by another controller. ConfigMaps are for others.
            let all = async || {
                let kinds = "trafficextensions,virtualservices,destinationrules";
                let versions =
                    "-o=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}\n{end}";
                cluster.kubectl(&["get", kinds, "--namespace=shop", versions]).await
            };
            let before = all().await?;
            assert_eq!(before.lines().count(), 5, "{before}");
            drop(first);
            let second = controller(cluster, "controller.2", &["--plugin-url", PLUGIN]).await?;
            wait_for("a report to the second", LIMIT, async || {
                let answer = Call::get(SERVICE, "/v1/status").send().await?;
                let views: Value = answer.json()?;
                let acked = views.as_array().context("a list")?.iter().filter(|one| one["fleet"]["acked"] == 2);
                let acked = acked.count();
                ensure!(acked == 2, "{views}");
                Ok(())
            })
            .await?;
            assert_eq!(all().await?, before);
            assert_eq!(
                cluster
                    .kubectl(&["get", "configmaps", "--namespace=shop", "-l=app.kubernetes.io/managed-by", "-o=name"])
                    .await?,
                ""
            );

            // A switch: first routes for both, then the flip, at last routes without the old version.
            patch(cluster, "reviews", json!({ "promotion": { "mode": "Manual" }, "version": "v2" })).await?;
            reaches(cluster, "reviews", "AwaitingPromotion", "v1").await?;
            wait_for("routes for both, after the subsets", LIMIT, async || {
                let (routes, subsets) = (routes(cluster, "reviews").await?, subsets(cluster, "reviews").await?);
                ensure!(routes == (vec![json!("v1"), json!("v2")], json!("v1")), "{routes:?}");
                assert_eq!(subsets, [json!("v1"), json!("v2")]);
                Ok(())
            })
            .await?;
            patch(
                cluster,
                "reviews",
                json!({ "promotion": { "mode": "Automatic" }, "cleanup": { "retainFor": "4s" } }),
            )
            .await?;
            reaches(cluster, "reviews", "Retaining", "v2").await?;
            assert_eq!(routes(cluster, "reviews").await?, (vec![json!("v1"), json!("v2")], json!("v2")));
            let settled = configured(cluster).await?;
            assert!(settled[1].1 > both[1].1, "the epoch of the flip, before the old version goes: {settled:?}");
            reaches(cluster, "reviews", "Stable", "v2").await?;
            let stopped = get(cluster, "deployment", "reviews-v1").await?;
            assert_eq!(stopped["spec"]["replicas"], 0);
            wait_for("routes without v1", LIMIT, async || {
                ensure!(routes(cluster, "reviews").await? == (vec![json!("v2")], json!("v2")));
                ensure!(subsets(cluster, "reviews").await? == [json!("v2")]);
                Ok(())
            })
            .await?;
            assert_eq!(routes(cluster, "ratings").await?, (vec![json!("v1")], json!("v1")), "another flag's");
            assert_eq!(configured(cluster).await?[0], both[0]);

            // What somebody deletes or edits is put right.
            cluster.kubectl(&["delete", "virtualservice", "versionflag-reviews", "--namespace=shop"]).await?;
            wait_for("the routes again", LIMIT, async || routes(cluster, "reviews").await).await?;
            let edit =
                json!({ "spec": { "http": [{ "route": [{ "destination": { "host": "ratings" } }] }] } }).to_string();
            cluster
                .kubectl(&[
                    "patch",
                    "virtualservice",
                    "versionflag-reviews",
                    "--namespace=shop",
                    "--type=merge",
                    "--patch",
                    &edit,
                ])
                .await?;
            wait_for("the routes as they were", LIMIT, async || {
                ensure!(routes(cluster, "reviews").await? == (vec![json!("v2")], json!("v2")));
                Ok(())
            })
            .await?;
            drop(second);
            Ok(())
        })
        .await
    });
}

#[test]
fn other_routes_hold_a_switch_up_and_are_named() {
    story("istio-conflict", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.apply(&flag("reviews").to_string()).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        beside(cluster, async {
            reaches(cluster, "reviews", "Stable", "v1").await?;
            let theirs = |hosts: &str| {
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": { "name": "theirs", "namespace": "default" },
                    "spec": {
                        "hosts": [hosts],
                        "http": [{ "route": [{ "destination": { "host": "reviews.shop.svc.cluster.local" } }] }],
                    },
                })
            };
            cluster.apply(&theirs("reviews.shop.svc.cluster.local").to_string()).await?;
            cluster.kubectl(&["label", "namespace", "default", "versionflag.io/callers=shop"]).await?;
            patch(cluster, "reviews", json!({ "callers": { "namespaces": ["default"] }, "version": "v2" })).await?;
            let conflict = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
            let message = conflict["message"].as_str().unwrap_or_default();
            assert!(
                message.starts_with("VirtualService default/theirs has routes for Service reviews too"),
                "{message}"
            );
            held(cluster, "reviews", "Coexisting", "v1", &conflict["message"]).await?;
            assert_eq!(get(cluster, "deployment", "reviews-v2").await?["spec"]["replicas"], 0, "nothing is started");

            cluster.apply(&theirs("shop.example.com").to_string()).await?;
            let bypass = wait_for("the way past the flag", LIMIT, async || {
                let one = condition(cluster, "reviews", "RoutesReady", "RouteConflict").await?;
                let message = one["message"].as_str().unwrap_or_default().to_owned();
                ensure!(message.contains("default/theirs leads past the flag of Service reviews"), "{message}");
                Ok(message)
            })
            .await?;
            assert!(bypass.contains("delegate:\n  name: versionflag-reviews-delegate"), "{bypass}");

            cluster.kubectl(&["delete", "virtualservice", "theirs", "--namespace=default"]).await?;
            reaches(cluster, "reviews", "Stable", "v2").await?;
            Ok(())
        })
        .await
    });
}

#[test]
fn what_is_missing_in_the_operators_routes_is_given() {
    story("istio-provided", async |cluster| {
        start(cluster).await?;
        // Without the right to write routes.
        let path = "clusterrolebinding/versionflag-istio-routes";
        cluster.kubectl(&["delete", path]).await?;
        install_istio(cluster).await?;
        cluster.apply(&flag("reviews").to_string()).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        beside(cluster, async {
            let refused = condition(cluster, "reviews", "RoutesReady", "RoutesNotWritten").await?;
            assert!(refused["message"].as_str().is_some_and(|it| it.contains("is forbidden")), "{refused}");

            patch(cluster, "reviews", json!({ "routing": { "management": "UserProvided" } })).await?;
            // Each snippet is what it says it is: applied, it leads to the next.
            let snippet = async |kind: &str| {
                let missing = condition(cluster, "reviews", "RoutesReady", "RouteMissing").await?;
                let message = missing["message"].as_str().unwrap_or_default().to_owned();
                ensure!(message.contains(kind), "{message}");
                let (_, yaml) = message.split_once(". It needs:\n").context("no snippet")?;
                Ok(serde_saphyr::from_str::<Value>(yaml)?)
            };
            let mut routes =
                wait_for("the routes", LIMIT, async || snippet("there is no VirtualService").await).await?;
            cluster.apply(&routes.to_string()).await?;
            let rule = wait_for("the subset", LIMIT, async || snippet("has a subset for v1").await).await?;
            let mut rule = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": { "name": "reviews", "namespace": "shop" }, "spec": rule,
            });
            cluster.apply(&rule.to_string()).await?;
            condition(cluster, "reviews", "RoutesReady", "Found").await?;
            reaches(cluster, "reviews", "Stable", "v1").await?;

            patch(cluster, "reviews", json!({ "version": "v2" })).await?;
            let more = wait_for("the subset of v2", LIMIT, async || snippet("has a subset for v2").await).await?;
            assert_eq!(get(cluster, "deployment", "reviews-v2").await?["spec"]["replicas"], 0, "nothing is started");
            let new = more["subsets"][0].clone();
            rule["spec"]["subsets"].as_array_mut().context("subsets")?.push(new);
            cluster.apply(&rule.to_string()).await?;
            let more = wait_for("the route of v2", LIMIT, async || snippet("does not resolve v2").await).await?;
            routes["spec"]["http"].as_array_mut().context("routes")?.insert(0, more["http"][0].clone());
            cluster.apply(&routes.to_string()).await?;
            // It flips. The old version stays while requests without a version go there.
            let wrong = condition(cluster, "reviews", "RoutesReady", "RouteDefault").await?;
            wait_for("the old version to be kept", LIMIT, async || {
                let held = reaches(cluster, "reviews", "Settling", "v2").await?;
                let message = held["status"]["blockedBy"].as_str().unwrap_or_default();
                ensure!(
                    message.starts_with("requests to Service reviews without a version do not go to v2"),
                    "{message}"
                );
                Ok(())
            })
            .await?;
            let (_, yaml) =
                wrong["message"].as_str().and_then(|it| it.split_once("It needs:\n")).context("a snippet")?;
            let default = serde_saphyr::from_str::<Value>(yaml)?["http"][0].clone();
            *routes["spec"]["http"].as_array_mut().and_then(|all| all.last_mut()).context("a default")? = default;
            cluster.apply(&routes.to_string()).await?;
            reaches(cluster, "reviews", "Stable", "v2").await?;
            let all = cluster.kubectl(&["get", "virtualservices,destinationrules", "-A", "-o=name"]).await?;
            assert_eq!(all.lines().count(), 2, "none is the controller's: {all}");
            Ok(())
        })
        .await
    });
}

#[test]
fn who_reports_has_to_be_at_the_address_of_its_pod() {
    story("istio-senders", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.apply(&flag("reviews").to_string()).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        reaches(cluster, "reviews", "Stable", "v1").await?;
        let pods = cluster.kubectl(&["get", "pods", "--namespace=shop", "--output=json"]).await?;
        let pods: Value = serde_json::from_str(&pods)?;
        let found: Vec<(&str, &str)> = pods["items"]
            .as_array()
            .context("pods")?
            .iter()
            .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, pod["status"]["podIP"].as_str()?)))
            .collect();
        let [(name, address), (other, elsewhere)] = found.as_slice() else { anyhow::bail!("two pods: {found:?}") };
        let poll = async |name: &str, address: &str| {
            let path = format!("/v1/snapshot?proxy={name}.shop&revision=&waitMs=0");
            Call::get(SERVICE, &path).from(address.parse()?).send().await
        };
        for (name, address) in [(name, address), (other, elsewhere)] {
            let answer = poll(name, address).await?;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let snapshot: Value = answer.json()?;
            assert_eq!(snapshot["flags"][0]["name"], "shop/reviews", "{snapshot}");
        }
        for (name, address, why) in [
            (*name, *elsewhere, format!("without a token: that pod is at {address}")),
            ("nobody", *address, "without a token: there is no such pod".to_owned()),
        ] {
            let answer = poll(name, address).await?;
            assert_eq!(answer.status, 403, "{}", answer.body);
            assert!(answer.body.contains(&why), "{}", answer.body);
            let report = json!({
                "protocol": 1, "proxy": format!("{name}.shop"), "boot": "1", "seq": 1, "instances": [1],
                "complete": true, "flags": {},
            });
            let lie = Call::post(SERVICE, "/v1/report", &report.to_string()).from(address.parse()?).send().await?;
            assert_eq!(lie.status, 403, "{}", lie.body);
            assert!(lie.body.contains(&why) && lie.body.contains("\"reason\":\"sender\""), "{}", lie.body);
        }
        Ok(())
    });
}

#[test]
fn a_cluster_without_istio_is_told_so_until_it_has_it() {
    story("istio-missing", async |cluster| {
        start(cluster).await?;
        cluster.apply(&flag("reviews").to_string()).await?;
        let blind = controller(cluster, "controller", &[]).await?;
        let missing = condition(cluster, "reviews", "Stalled", "IstioMissing").await?;
        let message = missing["message"].as_str().unwrap_or_default();
        assert!(message.contains("install Istio, or set spec.routing.provider to External"), "{message}");
        install_istio(cluster).await?;
        // An older Istio knows one kind of plugin only.
        cluster.kubectl(&["delete", "crd", "trafficextensions.extensions.istio.io"]).await?;
        let unknown = condition(cluster, "reviews", "Stalled", "PluginUnknown").await?;
        assert!(unknown["message"].as_str().is_some_and(|it| it.contains("--plugin-url")), "{unknown}");
        drop(blind);
        let seeing = controller(cluster, "controller.2", &["--plugin-url", PLUGIN]).await?;
        reaches(cluster, "reviews", "Stable", "v1").await?;
        let plugin = async || {
            let found = get(cluster, "wasmplugin", "versionflag").await?;
            Ok(found["spec"]["pluginConfig"]["flags"].as_array().context("no flags")?.len())
        };
        wait_for("a WasmPlugin", LIMIT, async || plugin().await).await?;

        // What there is stays in use when Istio is upgraded: never both kinds.
        install_istio(cluster).await?;
        drop(seeing);
        cluster.apply(&flag("ratings").to_string()).await?;
        let _later = controller(cluster, "controller.3", &["--plugin-url", PLUGIN]).await?;
        reaches(cluster, "ratings", "Stable", "v1").await?;
        wait_for("both flags in it", LIMIT, async || {
            let count = plugin().await?;
            ensure!(count == 2, "{count}");
            Ok(())
        })
        .await?;
        assert_eq!(cluster.kubectl(&["get", "trafficextensions", "-A", "-o=name"]).await?, "");

        // There is one header in a namespace.
        patch(cluster, "ratings", json!({ "routing": { "header": "x-my-version" } })).await?;
        let taken = condition(cluster, "ratings", "Stalled", "HeaderTaken").await?;
        let message = taken["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("VersionFlag shop/reviews has spec.routing.header x-versionflag"), "{message}");
        Ok(())
    });
}

#[test]
fn the_rights_for_istio_are_apart() {
    story("istio-rights", async |cluster| {
        cluster.install().await?;
        cluster.kubectl(&["create", "namespace", "shop"]).await?;
        install_istio(cluster).await?;
        let can = async |verb: &str, resource: &str| {
            let account = "system:serviceaccount:versionflag:versionflag";
            cluster.kubectl(&["auth", "can-i", verb, resource, "--as", account, "--namespace=shop"]).await.is_ok()
        };
        let (plugins, services) = ("trafficextensions.extensions.istio.io", "virtualservices.networking.istio.io");
        assert!(!can("watch", plugins).await && !can("watch", services).await);
        cluster.apply_manifests("kubernetes/istio").await?;
        for (verb, resource, may) in [
            ("watch", plugins, true),
            ("patch", plugins, true),
            ("create", "wasmplugins.extensions.istio.io", true),
            ("delete", plugins, false),
            ("watch", services, true),
            ("list", "destinationrules.networking.istio.io", true),
            ("patch", services, false),
            ("list", "gateways.networking.istio.io", false),
        ] {
            assert_eq!(can(verb, resource).await, may, "{verb} {resource}");
        }
        cluster.apply_manifests("kubernetes/istio/routes").await?;
        for (verb, resource, may) in [
            ("patch", services, true),
            ("create", "destinationrules.networking.istio.io", true),
            ("update", services, false),
            ("delete", services, false),
        ] {
            assert_eq!(can(verb, resource).await, may, "{verb} {resource}");
        }
        Ok(())
    });
}
