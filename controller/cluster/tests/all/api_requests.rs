//! What is asked of the API server, as it is counted.

use cluster::api_requests::name;
use hyper::Method;
use rstest::rstest;

const FLAGS: &str = "/apis/versionflag.io/v1alpha1/namespaces/shop/versionflags";

#[rstest]
#[case::everywhere(Method::GET, "/api/v1/pods", "limit=500", "list", "pods")]
#[case::watched(Method::GET, "/api/v1/pods", "allowWatchBookmarks=true&watch=true", "watch", "pods")]
#[case::one_place(Method::GET, "/api/v1/namespaces/shop/pods", "", "list", "pods")]
#[case::one(Method::GET, "/api/v1/namespaces/shop/pods/a", "", "get", "pods")]
#[case::namespaces(Method::GET, "/api/v1/namespaces", "", "list", "namespaces")]
#[case::namespace(Method::GET, "/api/v1/namespaces/shop", "", "get", "namespaces")]
#[case::nodes(Method::GET, "/api/v1/nodes/one", "", "get", "nodes")]
#[case::status(Method::PUT, &format!("{FLAGS}/reviews/status"), "fieldManager=versionflag", "update", "versionflags/status")]
#[case::some_status(Method::PATCH, &format!("{FLAGS}/reviews/status"), "", "patch", "versionflags/status")]
#[case::scale(Method::PUT, "/apis/apps/v1/namespaces/shop/deployments/a/scale", "", "update", "deployments/scale")]
#[case::new(Method::POST, "/api/v1/namespaces/shop/configmaps", "", "create", "configmaps")]
#[case::gone(Method::DELETE, "/api/v1/namespaces/shop/configmaps/a", "", "delete", "configmaps")]
#[case::review(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", "", "create", "tokenreviews")]
#[case::version(Method::GET, "/version", "", "get", "other")]
#[case::nothing(Method::OPTIONS, "/", "", "other", "other")]
fn a_request_is_named_as_rbac_has_it(
    #[case] method: Method,
    #[case] path: &str,
    #[case] query: &str,
    #[case] verb: &str,
    #[case] kind: &str,
) {
    assert_eq!(name(&method, path, query), (verb, kind.to_owned()));
}
