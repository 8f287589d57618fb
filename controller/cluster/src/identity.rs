//! Which pod a request comes from: by its token, as the API server vouches for it, or by its address, with its
//! certificate of the mesh where that is asked for.
//! I/O: TokenReview.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use super::cache::Shared;
use super::leader::MTLS_NAME;
use super::pods;
use service::lock::lock;
use service::reviews::{Memory, Review, Reviews};
use service::spiffe::ClientIdentity;
use service::{Authenticator, TokenReviewer};

/// The audience that a proxy's token has to be for.
pub const AUDIENCE: &str = "versionflag";
/// A pod that was deleted goes on being believed for a minute.
const MEMORY: Memory =
    Memory { believed: Duration::from_secs(60), refused: Duration::from_secs(10), unanswered: Duration::from_secs(1) };

/// Authenticates who shows a token of its pod; without one, who is at the address of its pod. With `mtls` the address
/// alone is not enough.
pub fn authenticator(client: Client, pods: Shared<Pod>, mtls: bool) -> Authenticator {
    let reviews = Arc::new(Reviews::new(MEMORY));
    let review: TokenReviewer = Box::new(move |token| {
        let (client, reviews, token) = (client.clone(), Arc::clone(&reviews), token.to_owned());
        Box::pin(async move { reviews.review(&token, || review(client, token.clone())).await })
    });
    let addressed =
        move |proxy: &str, address, shown: Option<&ClientIdentity>| believe(&pods, proxy, address, shown, mtls);
    Authenticator::Reviewed { review, addressed: Box::new(addressed) }
}

/// Whether a sender without a token is believed to be this proxy, by its address and the certificate that it has
/// shown. The error says why it is not. Pure.
pub fn believe(
    pods: &Shared<Pod>,
    proxy: &str,
    address: IpAddr,
    shown: Option<&ClientIdentity>,
    mtls: bool,
) -> Result<(), String> {
    let workload = match shown {
        Some(shown) => Some(shown.as_ref().map_err(ToString::to_string)?),
        None if mtls => {
            return Err(format!(
                "its address alone is not believed, because this controller was started with --mtls-certs: reach the \
                 port {MTLS_NAME} of its Service by mutual TLS, or show a token bound to the pod"
            ));
        }
        None => None,
    };
    // A namespace has no dots.
    let (name, namespace) = proxy.rsplit_once('.').ok_or("that is no POD.NAMESPACE")?;
    let pods = lock(pods);
    let pod = pods.get(namespace, name).ok_or("there is no such pod")?;
    if !pods::has_sidecar(pod) {
        return Err("that pod has no sidecar of Istio's".to_owned());
    }
    if let Some(workload) = workload.filter(|it| it.namespace != namespace || it.account != pods::account(pod)) {
        let account = pods::account(pod);
        return Err(format!("its certificate is of {workload}, and that pod has the account {account} of {namespace}"));
    }
    pods::is_not_at(pod, address).map_or(Ok(()), Err)
}

async fn review(client: Client, token: String) -> Review {
    let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token) };
    let ask = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
    let status = match Api::<TokenReview>::all(client).create(&PostParams::default(), &ask).await {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(error) => return Review::Unanswered(format!("it cannot be reviewed: {error}")),
    };
    if status.authenticated != Some(true) {
        return Review::Refused(status.error.unwrap_or_else(|| format!("it is not one for the audience {AUDIENCE}")));
    }
    pod(&status.user.unwrap_or_default()).map_or_else(Review::Refused, Review::Of)
}

/// `POD.NAMESPACE` of a pod-bound token.
fn pod(user: &UserInfo) -> Result<String, String> {
    let name = || user.username.as_deref().unwrap_or_default();
    let namespace = name().strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let pod = user.extra.as_ref().and_then(|extra| extra.get("authentication.kubernetes.io/pod-name")?.first());
    match (pod, namespace) {
        (Some(pod), Some((namespace, _))) => Ok(format!("{pod}.{namespace}")),
        _ => Err(format!("it is the token of {:?}, and bound to no pod", flag::shortened(name()))),
    }
}
