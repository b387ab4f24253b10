//! The host calls, each with its status as a value.
//!
//! The SDK's own bindings panic on statuses they do not expect, and on headers that are not
//! UTF-8; one such panic stops a worker. So this file, the only one with `unsafe` code, binds
//! the proxy-wasm ABI 0.2.1 again, thinly.
#![expect(unsafe_code, reason = "the ABI is pointers; every other file is safe")]

use std::ptr::{null, null_mut};

use crate::request::HeaderMap;
use crate::store::{Expected, SharedStore, StoreError, Versioned, Written};
use crate::time::Time;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// A compare-and-swap version that no value has: `set` with it creates a missing key and fails
/// on one that is there (proxy-wasm-cpp-host, `shared_data.cc`).
const NO_VERSION: u32 = u32::MAX;

/// A map of headers.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    CallResponse = 6,
}

/// A buffer of bytes.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// A kind of metric.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Metric {
    Counter = 0,
    Gauge = 1,
}

/// The host answered a call with this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed(pub(super) u32);

type Outcome<T> = Result<T, Failed>;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
}

fn checked(status: u32) -> Outcome<()> {
    if status == OK {
        Ok(())
    } else {
        Err(Failed(status))
    }
}

/// Bytes that a host call hands over: the host had the SDK's allocator make room for them.
struct HostBytes {
    data: *mut u8,
    size: usize,
}

impl HostBytes {
    const NONE: Self = Self {
        data: null_mut(),
        size: 0,
    };

    fn take(self) -> Vec<u8> {
        if self.data.is_null() || self.size == 0 {
            return Vec::new();
        }
        // SAFETY: `proxy_on_memory_allocate` of the SDK made a boxed slice of exactly `size`
        // bytes with the global allocator, the host filled it, and nobody else holds it.
        unsafe { Vec::from_raw_parts(self.data, self.size, self.size) }
    }
}

/// Runs a host call that hands bytes over.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Outcome<Vec<u8>> {
    let mut host = HostBytes::NONE;
    let status = call(&raw mut host.data, &raw mut host.size);
    let taken = host.take();
    checked(status).map(|()| taken)
}

/// Writes a line to the host's log: 0 trace to 5 critical.
pub(super) fn log(level: u32, message: &str) {
    // SAFETY: pointer and size are of one slice. A failure to log has nowhere to go.
    let _ = unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// The level from which the host's log shows lines.
pub(super) fn log_level() -> Outcome<u32> {
    let mut level = 0;
    // SAFETY: the pointer is to a live u32.
    checked(unsafe { proxy_get_log_level(&raw mut level) })?;
    Ok(level)
}

/// The host's clock, or a time that is not known ([`Time::is_known`]).
pub(super) fn now() -> Time {
    let mut nanos = 0;
    // SAFETY: the pointer is to a live u64.
    let told = checked(unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) });
    told.map(|()| Time::from_nanos(nanos)).unwrap_or_default()
}

/// Asks for ticks of the effective context's root.
pub(super) fn set_tick_period(millis: u32) -> Outcome<()> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_set_tick_period_milliseconds(millis) })
}

/// Bytes of a buffer, from `start` on.
pub(super) fn buffer(buffer: Buffer, start: usize, max_size: usize) -> Outcome<Vec<u8>> {
    // SAFETY: the result pointers are live.
    bytes(|data, size| unsafe { proxy_get_buffer_bytes(buffer.id(), start, max_size, data, size) })
}

/// Puts bytes in place of the first `size` of a buffer.
pub(super) fn replace_buffer(buffer: Buffer, size: usize, bytes: &[u8]) -> Outcome<()> {
    // SAFETY: pointer and size are of one slice.
    checked(unsafe { proxy_set_buffer_bytes(buffer.id(), 0, size, bytes.as_ptr(), bytes.len()) })
}

/// All headers of a map.
pub(super) fn headers(map: Map) -> Outcome<HeaderMap> {
    // SAFETY: the result pointers are live.
    bytes(|data, size| unsafe { proxy_get_header_map_pairs(map.id(), data, size) })
        .map(HeaderMap::from_host)
}

/// The first value of a header.
pub(super) fn header(map: Map, name: &str) -> Outcome<Vec<u8>> {
    // SAFETY: pointer and size are of one slice; the result pointers are live.
    bytes(|data, size| unsafe {
        proxy_get_header_map_value(map.id(), name.as_ptr(), name.len(), data, size)
    })
}

/// Adds a request header.
pub(super) fn add_request_header(name: &str, value: &[u8]) -> Outcome<()> {
    // SAFETY: pointers and sizes are of one slice each.
    checked(unsafe {
        proxy_add_header_map_value(
            Map::Request.id(),
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Whether the host lets headers be added. Called where there is no request: what may not be called is refused with a
/// status of its own there (proxy-wasm-cpp-host, `exports.h`), and what may be has nothing to work on.
pub(super) fn may_add_headers() -> bool {
    const INTERNAL_FAILURE: u32 = 10;
    const UNIMPLEMENTED: u32 = 12;
    !matches!(
        add_request_header("x-tollgate-probe", b"1"),
        Err(Failed(INTERNAL_FAILURE | UNIMPLEMENTED))
    )
}

/// Sets a request header in place of any that are there.
pub(super) fn set_request_header(name: &str, value: &[u8]) -> Outcome<()> {
    // SAFETY: pointers and sizes are of one slice each.
    checked(unsafe {
        proxy_replace_header_map_value(
            Map::Request.id(),
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Sets the status of the answer that is on its way to the caller.
pub(super) fn set_response_status(status: u16) -> Outcome<()> {
    const NAME: &str = ":status";
    let value = status.to_string();
    // SAFETY: pointers and sizes are of one slice each.
    checked(unsafe {
        proxy_replace_header_map_value(
            Map::Response.id(),
            NAME.as_ptr(),
            NAME.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes every value of a header. That there is none is no failure.
pub(super) fn remove_header(map: Map, name: &[u8]) -> Outcome<()> {
    // SAFETY: pointer and size are of one slice.
    let status = unsafe { proxy_remove_header_map_value(map.id(), name.as_ptr(), name.len()) };
    if status == NOT_FOUND {
        Ok(())
    } else {
        checked(status)
    }
}

/// A property; path elements are joined with zero bytes.
pub(super) fn property(path: &str) -> Outcome<Vec<u8>> {
    // SAFETY: pointer and size are of one slice; the result pointers are live.
    bytes(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property: a field of the filter state.
pub(super) fn set_property(path: &str, value: &[u8]) -> Outcome<()> {
    // SAFETY: pointers and sizes are of one slice each.
    checked(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Lets the request of the effective context go on.
pub(super) fn resume_request() -> Outcome<()> {
    const HTTP_REQUEST: u32 = 0;
    // SAFETY: no pointers.
    checked(unsafe { proxy_continue_stream(HTTP_REQUEST) })
}

/// Answers the request of the effective context.
pub(super) fn send_local_response(
    status: u16,
    details: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Outcome<()> {
    const NO_GRPC_STATUS: i32 = -1;
    let headers = headers.as_bytes();
    // SAFETY: pointers and sizes are of one slice each.
    checked(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Makes the calls that follow act on another context.
pub(super) fn set_effective_context(context: u32) -> Outcome<()> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_set_effective_context(context) })
}

/// Calls a function of the host that the ABI does not know.
pub(super) fn call_foreign_function(name: &str, arguments: &[u8]) -> Outcome<Vec<u8>> {
    let arguments_pointer = if arguments.is_empty() {
        null()
    } else {
        arguments.as_ptr()
    };
    // SAFETY: pointers and sizes are of one slice each; the result pointers are live.
    bytes(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments_pointer,
            arguments.len(),
            data,
            size,
        )
    })
}

/// Defines a metric, or finds the one of that name.
pub(super) fn define_metric(kind: Metric, name: &str) -> Outcome<u32> {
    let mut id = 0;
    // SAFETY: pointer and size are of one slice; the result pointer is live.
    checked(unsafe { proxy_define_metric(kind.id(), name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Sets a gauge.
pub(super) fn record_metric(id: u32, value: u64) -> Outcome<()> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_record_metric(id, value) })
}

/// Adds to a counter.
pub(super) fn increment_metric(id: u32, offset: i64) -> Outcome<()> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_increment_metric(id, offset) })
}

/// The process's shared data.
#[derive(Debug, Default)]
pub(super) struct HostStore;

impl SharedStore for HostStore {
    fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let mut version = 0;
        // SAFETY: pointer and size are of one slice; the result pointers are live.
        let found = bytes(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
        });
        match found {
            Ok(value) => Ok(Some(Versioned { value, version })),
            Err(Failed(NOT_FOUND)) => Ok(None),
            Err(_) => Err(StoreError),
        }
    }

    fn write(&self, key: &str, value: &[u8], expected: Expected) -> Result<Written, StoreError> {
        let cas = match expected {
            Expected::Absent => NO_VERSION,
            Expected::Version(version) => version,
        };
        #[cfg(feature = "chaos")]
        super::chaos::linger();
        // SAFETY: pointers and sizes are of one slice each.
        let status = unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
        };
        match status {
            OK => Ok(Written::Stored),
            CAS_MISMATCH => Ok(Written::Conflict),
            _ => Err(StoreError),
        }
    }
}

macro_rules! ids {
    ($($name:ident),*) => {$(
        impl $name {
            fn id(self) -> u32 {
                #[expect(clippy::as_conversions, reason = "repr(u32), no fields")]
                let id = self as u32;
                id
            }
        }
    )*};
}

ids!(Map, Buffer, Metric);
