//! An API server in memory, as far as the controller asks: objects by path, resource versions, conflicts. Watches never
//! end, and what is under a path that stands still is never answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::lock::lock;
use service::{Authenticator, Hub};

use crate::cache::{Cache, Told, no_pods};
use crate::domain::Domain;
use crate::driver::Options;
use crate::istio::mesh::Mesh;
use crate::istio::plugin::Image;
use crate::istio::watch::IstioCache;
use crate::lease::Leadership;
use crate::turns::Around;
use crate::writer::Writer;

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path of each write that was answered.
    writes: Vec<String>,
    stands_still: Option<String>,
    refused: Option<String>,
}

/// The API server.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<Stored>>);

impl FakeApi {
    /// Puts an object there.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut stored = lock(&self.0);
        stored.version += 1;
        object["metadata"]["resourceVersion"] = json!(stored.version.to_string());
        stored.objects.insert(path.to_owned(), object);
    }

    /// Takes one away.
    pub(crate) fn delete(&self, path: &str) {
        lock(&self.0).objects.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        lock(&self.0).objects.get(path).cloned()
    }

    /// From now on writes under this path are not answered.
    pub(crate) fn stand_still(&self, path: &str) {
        lock(&self.0).stands_still = Some(path.to_owned());
    }

    /// Nobody may ask for what is under this path.
    pub(crate) fn refuse(&self, path: &str) {
        lock(&self.0).refused = Some(path.to_owned());
    }

    /// What was written since this was asked last.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0).writes)
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (method, path) = (parts.method.as_str().to_owned(), parts.uri.path().to_owned());
        let query = parts.uri.query().unwrap_or_default();
        let still = lock(&self.0).stands_still.clone();
        if query.contains("watch=") || method != "GET" && still.is_some_and(|still| path.contains(&still)) {
            std::future::pending::<()>().await;
        }
        let body = body.collect_bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = lock(&self.0).take(&method, &path, body);
        Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }))
}

/// As a merge patch does it.
fn merge(into: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in patch {
                merge(&mut into[key], value);
            }
        }
        other => *into = other,
    }
}

impl Stored {
    fn take(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path).to_owned();
        if self.refused.as_ref().is_some_and(|refused| path.starts_with(refused)) {
            return failure(403, "Forbidden");
        }
        if method == "GET" {
            return match self.objects.get(&path) {
                Some(found) => (200, found.clone()),
                // The controller lists those of all namespaces only.
                None if !path.contains("/namespaces/") => {
                    let kind = path.rsplit('/').next().unwrap_or_default();
                    let of = |at: &String| at.split('/').rev().nth(1) == Some(kind);
                    let items: Vec<&Value> = self.objects.iter().filter(|(at, _)| of(at)).map(|(_, it)| it).collect();
                    (200, json!({ "metadata": { "resourceVersion": "1" }, "items": items }))
                }
                None => failure(404, "NotFound"),
            };
        }
        let path = match (method, body.pointer("/metadata/name").and_then(Value::as_str)) {
            ("POST", Some(name)) => format!("{path}/{name}"),
            ("POST", None) => return (201, body),
            _ => path,
        };
        let found = self.objects.get(&path);
        let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
        let clash = match (method, found) {
            ("POST", Some(_)) => true,
            (_, Some(found)) => version(&body).is_some() && version(&body) != version(found),
            ("PUT" | "PATCH", None) if version(&body).is_some() => true,
            ("PUT" | "PATCH", None) => return failure(404, "NotFound"),
            _ => false,
        };
        if clash {
            return failure(409, "Conflict");
        }
        let mut now = found.cloned().unwrap_or_default();
        merge(&mut now, body);
        self.version += 1;
        now["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.writes.push(format!("{method} {path}"));
        self.objects.insert(path, now.clone());
        (200, now)
    }
}

/// A controller at this API server, that leads.
pub(crate) async fn around(api: &FakeApi) -> Around {
    let client = api.client();
    let hub = Arc::new(Hub::new(Authenticator::listed()));
    let (told, domain) = (Told::default(), Domain::default());
    let options = Options {
        namespace: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        health_listen: None,
        mtls: None,
        identity: "versionflag-0".to_owned(),
        home: "versionflag".to_owned(),
        addresses: vec!["198.18.0.7".parse().unwrap()],
        filter_path: "/filter.wasm".into(),
        flag_service_cluster: "versionflag".to_owned(),
        image: Image::default(),
        domain: domain.clone(),
        check_hosts: None,
        asks_consent: false,
        audit: Audit::default(),
    };
    Around {
        ports: (7070, None),
        cache: Cache::start(&client, (None, false), &hub, no_pods(), told.clone()).await,
        writer: Writer::new(client.clone(), "versionflag-0"),
        mesh: Mesh::new(client.clone(), IstioCache::new(&client, None, &hub, &told, &domain), Image::default()),
        checks: CheckRunner::new(Arc::clone(&hub)).unwrap(),
        leadership: Leadership::always(),
        hub,
        options,
    }
}

/// A VersionFlag of one Service, that nothing is known of.
pub(crate) fn flag(api: &FakeApi, namespace: &str, name: &str) -> String {
    let path = format!("/apis/versionflag.io/v1alpha1/namespaces/{namespace}/versionflags/{name}");
    let spec = json!({ "version": "v1", "services": [{ "name": name }] });
    let uid = format!("{namespace}-{name}");
    api.put(
        &path,
        json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
            "metadata": { "name": name, "namespace": namespace, "uid": uid, "generation": 1 }, "spec": spec,
        }),
    );
    path
}
