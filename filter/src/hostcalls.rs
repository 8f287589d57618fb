//! The calls of proxy-wasm ABI 0.2.1 into Envoy that this filter makes. The SDK's own end the VM at
//! every status that they do not expect, and bring its dispatcher into the binary. Hostcalls.

#![allow(unsafe_code, reason = "the host is given addresses in our memory, and is trusted with them")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

use proxy_wasm::types::{BufferType, MapType, MetricType, StreamType};

/// What the host answered instead of OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) u32);

type Result<T> = std::result::Result<T, Failure>;

mod env {
    use super::{BufferType, MapType, MetricType, StreamType};

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) safe fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) safe fn proxy_increment_metric(id: u32, amount: i64) -> u32;
        pub(super) safe fn proxy_set_effective_context(context: u32) -> u32;
        pub(super) safe fn proxy_continue_stream(stream: StreamType) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: BufferType,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_value(
            map: MapType,
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: MapType,
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(map: MapType, key: *const u8, key_size: usize) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            cas: u32,
        ) -> u32;
        pub(super) fn proxy_register_shared_queue(name: *const u8, name_size: usize, id: *mut u32) -> u32;
        pub(super) fn proxy_enqueue_shared_queue(id: u32, value: *const u8, value_size: usize) -> u32;
        pub(super) fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub(super) fn proxy_define_metric(kind: MetricType, name: *const u8, name_size: usize, id: *mut u32) -> u32;
        pub(super) fn proxy_http_call(
            cluster: *const u8,
            cluster_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout_ms: u32,
            token: *mut u32,
        ) -> u32;
    }
}

/// Bytes of an answer that needs no allocation: longer than any host that has a flag.
const SMALL: usize = 288;

thread_local! {
    /// Where the next answer goes, if it is small.
    static PLACE: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The host asks for memory to put an answer into: see `given`.
#[unsafe(no_mangle)]
extern "C" fn versionflag_malloc(size: usize) -> *mut u8 {
    let place = PLACE.replace(ptr::null_mut());
    if !place.is_null() && size <= SMALL {
        return place;
    }
    Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
}

fn done(status: u32) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Failure(status)) }
}

/// Bytes that the host gives: it asks `malloc` for their memory, which makes a `Vec` of exactly that
/// size. `None`: there is nothing.
fn given(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    if call(&raw mut data, &raw mut size) != 0 || data.is_null() {
        return None;
    }
    // SAFETY: made by `malloc` with this size, and given to nobody else.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

pub(crate) fn set_tick_period_ms(period: u32) -> Result<()> {
    done(env::proxy_set_tick_period_milliseconds(period))
}

/// Nanoseconds of the proxy's clock since 1970; 0 where it has none.
pub(crate) fn now_ns() -> u64 {
    let mut time = 0;
    // SAFETY: the host writes 8 bytes.
    unsafe { env::proxy_get_current_time_nanoseconds(&raw mut time) };
    time
}

pub(crate) fn buffer(buffer: BufferType, most: usize) -> Option<Vec<u8>> {
    // SAFETY: see `given`.
    given(|data, size| unsafe { env::proxy_get_buffer_bytes(buffer, 0, most, data, size) })
}

/// Lends a header to the action, without an allocation where it is short.
pub(crate) fn with_header<T>(map: MapType, name: &str, action: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let mut place = MaybeUninit::<[u8; SMALL]>::uninit();
    let (place, mut data, mut size) = (place.as_mut_ptr().cast(), ptr::null_mut(), 0);
    PLACE.set(place);
    // SAFETY: the name is only read, and the host writes an address and a size.
    let status =
        unsafe { env::proxy_get_header_map_value(map, name.as_ptr(), name.len(), &raw mut data, &raw mut size) };
    PLACE.set(ptr::null_mut());
    if status != 0 {
        return None;
    }
    // What is there and empty has no address.
    if data.is_null() {
        return Some(action(&[]));
    }
    if ptr::eq(data, place) {
        // SAFETY: the host wrote that many bytes there; it had asked for them.
        return Some(action(unsafe { std::slice::from_raw_parts(data, size) }));
    }
    // SAFETY: as in `given`.
    Some(action(&unsafe { Vec::from_raw_parts(data, size, size) }))
}

pub(crate) fn header(map: MapType, name: &str) -> Option<Vec<u8>> {
    // SAFETY: see `given`; the name is only read.
    given(|data, size| unsafe { env::proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size) })
}

/// Replaces all values.
pub(crate) fn set_header(map: MapType, name: &str, value: &str) -> Result<()> {
    // SAFETY: both are only read.
    done(unsafe { env::proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<()> {
    // SAFETY: it is only read.
    done(unsafe { env::proxy_remove_header_map_value(map, name.as_ptr(), name.len()) })
}

/// A property of Envoy's; the parts of its path are separated by zeros.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: see `given`; the path is only read.
    given(|data, size| unsafe { env::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// With the number that a compare-and-swap compares.
pub(crate) fn shared_data(key: &str) -> (Option<Vec<u8>>, Option<u32>) {
    let mut cas = 0;
    // SAFETY: see `given`; the key is only read, and the host writes 4 bytes.
    let value =
        given(|data, size| unsafe { env::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas) });
    (value, (cas != 0).then_some(cas))
}

pub(crate) fn set_shared_data(key: &str, value: &[u8], cas: Option<u32>) -> Result<()> {
    let cas = cas.unwrap_or(0);
    // SAFETY: both are only read.
    done(unsafe { env::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) })
}

pub(crate) fn register_queue(name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: the name is only read, and the host writes 4 bytes.
    done(unsafe { env::proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut id) }).map(|()| id)
}

pub(crate) fn enqueue(id: u32, value: &[u8]) -> Result<()> {
    // SAFETY: it is only read.
    done(unsafe { env::proxy_enqueue_shared_queue(id, value.as_ptr(), value.len()) })
}

pub(crate) fn dequeue(id: u32) -> Option<Vec<u8>> {
    // SAFETY: see `given`.
    given(|data, size| unsafe { env::proxy_dequeue_shared_queue(id, data, size) })
}

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: the name is only read, and the host writes 4 bytes.
    done(unsafe { env::proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) }).map(|()| id)
}

pub(crate) fn increment_metric(id: u32, amount: i64) -> Result<()> {
    done(env::proxy_increment_metric(id, amount))
}

/// Back to a context that was left for a while.
#[inline(never)]
pub(crate) fn go_back_to(context: u32) {
    if set_effective_context(context).is_err() {
        log::warn!("the context before is gone");
    }
}

/// What is called for from now on concerns this context.
pub(crate) fn set_effective_context(context: u32) -> Result<()> {
    done(env::proxy_set_effective_context(context))
}

pub(crate) fn resume_request() -> Result<()> {
    done(env::proxy_continue_stream(StreamType::HttpRequest))
}

/// A map as the ABI wants it: how many, the sizes, and then names and values, each ended by a zero.
fn serialized(map: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, number: usize| bytes.extend_from_slice(&(number as u32).to_le_bytes());
    number(&mut bytes, map.len());
    for (name, value) in map {
        number(&mut bytes, name.len());
        number(&mut bytes, value.len());
    }
    for part in map.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Answers the request in context with 503, so that it is tried again.
pub(crate) fn refuse(why: &str) -> Result<()> {
    const UNAVAILABLE: i32 = 14;
    const DETAILS: &str = "versionflag_refused";
    let headers = serialized(&[("retry-after", "1"), ("x-versionflag-refused", why)]);
    // SAFETY: all is only read.
    done(unsafe {
        env::proxy_send_local_response(
            503,
            DETAILS.as_ptr(),
            DETAILS.len(),
            DETAILS.as_ptr(),
            0,
            headers.as_ptr(),
            headers.len(),
            UNAVAILABLE,
        )
    })
}

/// Calls a cluster; the token tells the answer.
pub(crate) fn http_call(cluster: &str, headers: &[(&str, &str)], body: &[u8], timeout_ms: u32) -> Result<u32> {
    let (headers, trailers) = (serialized(headers), serialized(&[]));
    let mut token = 0;
    // SAFETY: all is only read, and the host writes 4 bytes.
    done(unsafe {
        env::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout_ms,
            &raw mut token,
        )
    })
    .map(|()| token)
}
