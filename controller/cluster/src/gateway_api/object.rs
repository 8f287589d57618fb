//! Routes of the Gateway API as they are read: whatever is in them makes sense as far as it is looked at.
//! Pure.

use serde::Deserialize;
use serde_json::{Map, Value};

/// What is looked at of an HTTPRoute or a GRPCRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteSpec {
    /// Whose requests it is about.
    pub parent_refs: Vec<Reference>,
    /// What is done with them.
    pub rules: Vec<RouteRule>,
}

/// A rule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteRule {
    /// Any of these; without any, always.
    pub matches: Vec<Condition>,
    /// Where it leads.
    pub backend_refs: Vec<Reference>,
    /// What else is done with a request.
    pub filters: Vec<RouteFilter>,
}

/// What is done with a request besides.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteFilter {
    /// A copy of it goes there.
    pub request_mirror: Option<RequestMirror>,
}

/// Where copies of requests go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestMirror {
    /// The Service.
    pub backend_ref: Reference,
}

/// All of these conditions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Of headers.
    pub headers: Vec<Header>,
    /// All others.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A condition of a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Its name, in any spelling.
    pub name: String,
    /// How it is compared; without it, exactly.
    pub r#type: Option<String>,
    /// With what.
    pub value: String,
}

/// A parent, or where a share of the requests goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reference {
    /// Group of its kind; empty for a Service.
    pub group: Option<String>,
    /// Its kind.
    pub kind: Option<String>,
    /// Its namespace; without it, that of the route.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// One port of it; without it, all.
    pub port: Option<i32>,
    /// The share.
    pub weight: Option<i64>,
}

impl Reference {
    /// Whether this parent of a route in `place` is the Service. A parent is a Gateway unless it says what it is.
    pub fn is_parent(&self, place: &str, service: &str, namespace: &str) -> bool {
        self.kind.as_deref() == Some("Service")
            && self.group.as_deref() == Some("")
            && self.name == service
            && self.namespace(place) == namespace
    }

    /// The name of the Service in `namespace` to which a rule of a route in `place` sends requests.
    pub fn backend(&self, place: &str, namespace: &str) -> Option<&str> {
        let is_service = self.kind.as_deref().is_none_or(|kind| kind == "Service")
            && self.group.as_deref().is_none_or(str::is_empty);
        (is_service && self.weight != Some(0) && self.namespace(place) == namespace).then_some(self.name.as_str())
    }

    fn namespace<'a>(&'a self, place: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(place)
    }
}

impl Condition {
    /// The value that the routing header has to have.
    pub fn marks(&self, header: &str) -> Option<&str> {
        let found = self.headers.iter().find(|one| one.name.eq_ignore_ascii_case(header))?;
        found.r#type.as_deref().is_none_or(|kind| kind == "Exact").then_some(found.value.as_str())
    }

    /// Whether it takes several values of the routing header.
    pub fn catches(&self, header: &str) -> bool {
        self.headers.iter().any(|one| one.name.eq_ignore_ascii_case(header)) && self.marks(header).is_none()
    }

    /// All of it but the routing header, so that equal conditions are equal.
    pub fn rest(&self, header: &str) -> Rest {
        let mut headers: Vec<Header> =
            self.headers.iter().filter(|one| !one.name.eq_ignore_ascii_case(header)).cloned().collect();
        for one in &mut headers {
            one.name.make_ascii_lowercase();
            one.r#type.get_or_insert_with(|| "Exact".to_owned());
        }
        headers.sort();
        let mut more = self.more.clone();
        // Of all paths, however that is said.
        more.retain(|key, value| {
            let path = |field: &str| value.get(field).and_then(Value::as_str);
            let all = path("value").is_none_or(|it| it == "/") && path("type").is_none_or(|it| it == "PathPrefix");
            !(value.is_null() || key == "path" && all)
        });
        Rest { headers, more }
    }
}

/// A condition without the routing header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rest {
    /// Other headers.
    pub headers: Vec<Header>,
    /// Path, method, parameters.
    pub more: Map<String, Value>,
}

/// What is looked at of the status of a route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// What is said for each of its parents.
    pub parents: Vec<ParentStatus>,
}

/// What is said for one parent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ParentStatus {
    /// In so many words.
    pub conditions: Vec<ParentCondition>,
}

/// A condition of a status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentCondition {
    /// What it is about.
    pub r#type: String,
    /// Whether it is so.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The generation of the route that it is about.
    pub observed_generation: Option<i64>,
}

impl RouteStatus {
    /// What a status says. What does not make sense is not there.
    pub fn of(status: &Value) -> RouteStatus {
        RouteStatus::deserialize(status).unwrap_or_default()
    }
}
