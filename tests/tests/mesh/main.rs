//! What runs in a real Istio mesh. One program, so that what all tests need is built once.

mod bookinfo;
mod callers;
mod fence;
mod fence_partition;
mod fence_withheld;
mod gateway;
mod gateway_api;
mod lab;
mod mtls;
mod rollback;
mod stale;
mod streams;
mod switch;
mod uninstall;
mod withheld;
