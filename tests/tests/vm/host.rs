//! One VM instance of the shipped filter, and the calls of proxy-wasm ABI 0.2.1 that it makes, as
//! Envoy answers them. The shared part of a proxy is [`Shared`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, bail};
use wasmi::{Caller, Engine, Error, Extern, Instance, Linker, Memory, Module, Store, Val};

use super::order::Order;

/// A failure that Envoy may answer a correct call with, by the call's name. The SDK ends the VM at
/// any other one, and where calls are missing here, at every one.
const FAILURES: [(&str, Status); 8] = [
    ("proxy_get_buffer_bytes", Status::NotFound),
    ("proxy_get_property", Status::NotFound),
    ("proxy_get_shared_data", Status::NotFound),
    ("proxy_set_shared_data", Status::CasMismatch),
    ("proxy_dequeue_shared_queue", Status::Empty),
    ("proxy_enqueue_shared_queue", Status::NotFound),
    ("proxy_http_call", Status::BadArgument),
    ("proxy_increment_metric", Status::BadArgument),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    Empty = 7,
    CasMismatch = 8,
    Unimplemented = 12,
}

/// A call to the flag service that was not answered yet.
#[derive(Debug)]
pub(crate) struct Dispatched {
    pub(crate) worker: usize,
    pub(crate) plugin: i32,
    pub(crate) token: i32,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// A queue: who registered it last, and what is in it.
#[derive(Debug)]
pub(crate) struct Queue {
    name: String,
    pub(crate) worker: usize,
    pub(crate) plugin: i32,
    pub(crate) items: VecDeque<Vec<u8>>,
    /// Its owner has to be told.
    pub(crate) rings: bool,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The call that fails, counted from now; 0: none.
    pub(crate) nth: u64,
    /// The name of the call that did.
    pub(crate) failed: Option<String>,
    /// Writes of keys that end like this lose their compare-and-swap so often.
    pub(crate) conflicts: Option<(&'static str, u64)>,
    /// Nobody is told of what is in a queue.
    pub(crate) deaf: bool,
}

/// What all instances of one proxy share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) now_ms: u64,
    pub(crate) data: BTreeMap<String, (Vec<u8>, u32)>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) calls: Vec<Dispatched>,
    pub(crate) log: Vec<String>,
    pub(crate) faults: Faults,
    /// Properties of the proxy, besides those that every one here has.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    counter: u32,
}

impl Shared {
    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// Writes as any other filter of the proxy could.
    pub(crate) fn scribble(&mut self, key: &str, value: &[u8]) {
        let cas = self.next();
        self.data.insert(key.to_owned(), (value.to_vec(), cas));
    }
}

pub(crate) type Common = Arc<Mutex<Shared>>;

pub(crate) fn lock(shared: &Common) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panics with it")
}

/// What was called in both directions, by name.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) into_vm: Vec<String>,
    pub(crate) out: Vec<String>,
}

/// What the callback that runs can see.
#[derive(Debug)]
pub(crate) struct Scope {
    shared: Common,
    worker: usize,
    /// Who goes on when, where workers run side by side.
    pub(crate) order: Option<Arc<Order>>,
    /// The context that calls.
    pub(crate) context: i32,
    pub(crate) configuration: Vec<u8>,
    pub(crate) headers: BTreeMap<i32, BTreeMap<String, String>>,
    pub(crate) cluster: String,
    /// The clusters that requests have gone to, by context.
    pub(crate) sent_to: BTreeMap<i32, String>,
    pub(crate) answer: (String, Vec<u8>),
    /// Milliseconds between two ticks of a plugin.
    pub(crate) ticks: BTreeMap<i32, u64>,
    pub(crate) resumed: Vec<i32>,
    /// Those that Envoy was told to stop.
    pub(crate) stopped: BTreeSet<i32>,
    /// Why requests were answered in place of a version, by context.
    pub(crate) refused: BTreeMap<i32, String>,
    /// What was called, where that is asked for.
    pub(crate) calls: Option<Calls>,
}

pub(crate) struct Vm {
    pub(crate) store: Store<Scope>,
    instance: Instance,
}

impl Vm {
    pub(crate) fn new(engine: &Engine, module: &Module, shared: Common, worker: usize) -> Result<Vm> {
        let scope = Scope {
            shared,
            worker,
            order: None,
            context: 0,
            configuration: vec![],
            headers: BTreeMap::new(),
            cluster: String::new(),
            sent_to: BTreeMap::new(),
            answer: Default::default(),
            ticks: BTreeMap::new(),
            resumed: vec![],
            stopped: BTreeSet::new(),
            refused: BTreeMap::new(),
            calls: None,
        };
        let mut store = Store::new(engine, scope);
        let mut linker = Linker::new(engine);
        for import in module.imports() {
            let name = import.name().to_owned();
            let ty = import.ty().func().context("an import that is no function")?.clone();
            linker.func_new(import.module(), import.name(), ty, move |mut caller, arguments, results| {
                let arguments: Vec<i32> = arguments.iter().map(|value| value.i32().unwrap_or_default()).collect();
                let status = hostcall(&mut caller, &name, &arguments)?;
                results[0] = Val::I32(status as i32);
                Ok(())
            })?;
        }
        let instance = linker.instantiate_and_start(&mut store, module)?;
        let mut vm = Vm { store, instance };
        vm.call("_initialize", 0, &[])?;
        Ok(vm)
    }

    /// Calls an export, if there is one: those without use are trimmed. A trap is an error.
    pub(crate) fn call(&mut self, export: &str, context: i32, arguments: &[i32]) -> Result<Option<i32>> {
        let Some(function) = self.instance.get_func(&self.store, export) else { return Ok(None) };
        self.store.data_mut().context = context;
        if let Some(calls) = &mut self.store.data_mut().calls {
            calls.into_vm.push(export.to_owned());
        }
        let arguments: Vec<Val> = arguments.iter().map(|value| Val::I32(*value)).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        if let Err(trap) = function.call(&mut self.store, &arguments, &mut results) {
            let log = lock(&self.store.data().shared).log.clone();
            bail!("{export} trapped: {trap}; its log: {log:#?}");
        }
        Ok(results.first().and_then(Val::i32))
    }

    /// A context ends.
    pub(crate) fn delete(&mut self, context: i32) -> Result<()> {
        for end in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"] {
            self.call(end, context, &[context])?;
        }
        Ok(())
    }
}

fn memory(caller: &Caller<'_, Scope>) -> Result<Memory, Error> {
    caller.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| Error::new("no memory"))
}

fn read(caller: &Caller<'_, Scope>, at: i32, size: i32) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; size as usize];
    memory(caller)?.read(caller, at as usize, &mut bytes)?;
    Ok(bytes)
}

fn text(caller: &Caller<'_, Scope>, at: i32, size: i32) -> Result<String, Error> {
    String::from_utf8(read(caller, at, size)?).map_err(|_| Error::new("not UTF-8"))
}

fn put(caller: &mut Caller<'_, Scope>, at: i32, bytes: &[u8]) -> Result<(), Error> {
    let memory = memory(caller)?;
    Ok(memory.write(caller, at as usize, bytes)?)
}

/// Gives bytes to the filter, in memory of its own.
fn give(caller: &mut Caller<'_, Scope>, bytes: &[u8], to: i32, size: i32) -> Result<Status, Error> {
    let malloc = caller.get_export("malloc").and_then(Extern::into_func).ok_or_else(|| Error::new("no malloc"))?;
    let mut place = 0;
    if !bytes.is_empty() {
        place = malloc.typed::<i32, i32>(&*caller)?.call(&mut *caller, bytes.len() as i32)?;
        put(caller, place, bytes)?;
    }
    put(caller, to, &place.to_le_bytes())?;
    put(caller, size, &(bytes.len() as i32).to_le_bytes())?;
    Ok(Status::Ok)
}

fn hostcall(caller: &mut Caller<'_, Scope>, name: &str, a: &[i32]) -> Result<Status, Error> {
    if let Some(calls) = &mut caller.data_mut().calls {
        calls.out.push(name.to_owned());
    }
    if name.contains("shared")
        && let Some(order) = &caller.data().order
    {
        order.turn(caller.data().worker);
    }
    let shared = caller.data().shared.clone();
    if let Some((_, failure)) = FAILURES.iter().find(|(call, _)| *call == name) {
        let faults = &mut lock(&shared).faults;
        if faults.nth > 0 {
            faults.nth -= 1;
            if faults.nth == 0 {
                faults.failed = Some(name.to_owned());
                return Ok(*failure);
            }
        }
    }
    let (worker, context) = (caller.data().worker, caller.data().context);
    match (name, a) {
        ("proxy_log", [_, at, size]) => {
            let line = text(caller, *at, *size)?;
            lock(&shared).log.push(line);
        }
        ("proxy_get_current_time_nanoseconds", [to]) => {
            // No two readings of a real clock are the same.
            let mut shared = lock(&shared);
            let now = shared.now_ms * 1_000_000 + u64::from(shared.next() % 1_000_000);
            drop(shared);
            put(caller, *to, &now.to_le_bytes())?;
        }
        ("proxy_set_tick_period_milliseconds", [ms]) => {
            caller.data_mut().ticks.insert(context, *ms as u64);
        }
        ("proxy_get_buffer_bytes", [kind, start, most, to, size]) => {
            let whole = match kind {
                4 => caller.data().answer.1.clone(),
                7 => caller.data().configuration.clone(),
                _ => return Ok(Status::NotFound),
            };
            let part: Vec<u8> = whole.into_iter().skip(*start as usize).take(*most as usize).collect();
            return give(caller, &part, *to, *size);
        }
        ("proxy_get_header_map_value", [map, key, key_size, to, size]) => {
            let key = text(caller, *key, *key_size)?;
            let value = match map {
                0 => caller.data().headers.get(&context).and_then(|headers| headers.get(&key).cloned()),
                6 if key == ":status" && !caller.data().answer.0.is_empty() => Some(caller.data().answer.0.clone()),
                _ => None,
            };
            let Some(value) = value else { return Ok(Status::NotFound) };
            return give(caller, value.as_bytes(), *to, *size);
        }
        ("proxy_replace_header_map_value", [0, key, key_size, value, value_size]) => {
            let (key, value) = (text(caller, *key, *key_size)?, text(caller, *value, *value_size)?);
            let headers = caller.data_mut().headers.get_mut(&context);
            let Some(headers) = headers else { return Ok(Status::BadArgument) };
            headers.insert(key, value);
        }
        ("proxy_remove_header_map_value", [0, key, key_size]) => {
            let key = text(caller, *key, *key_size)?;
            if let Some(headers) = caller.data_mut().headers.get_mut(&context) {
                headers.remove(&key);
            }
        }
        ("proxy_get_property", [path, path_size, to, size]) => {
            let path = text(caller, *path, *path_size)?.replace('\0', ".");
            let known = lock(&shared).properties.get(&path).cloned();
            if let Some(value) = known {
                return give(caller, &value, *to, *size);
            }
            let value = match path.as_str() {
                "xds.node.id" => "edge".to_owned(),
                "xds.cluster_name" => caller.data().sent_to.get(&context).unwrap_or(&caller.data().cluster).clone(),
                "upstream.address" if caller.data().sent_to.contains_key(&context) => "10.0.0.7:80".to_owned(),
                _ => return Ok(Status::NotFound),
            };
            return give(caller, value.as_bytes(), *to, *size);
        }
        ("proxy_get_shared_data", [key, key_size, to, size, cas]) => {
            let key = text(caller, *key, *key_size)?;
            let found = lock(&shared).data.get(&key).cloned();
            let Some((value, version)) = found else { return Ok(Status::NotFound) };
            put(caller, *cas, &version.to_le_bytes())?;
            return give(caller, &value, *to, *size);
        }
        ("proxy_set_shared_data", [key, key_size, value, value_size, cas]) => {
            let (key, value) = (text(caller, *key, *key_size)?, read(caller, *value, *value_size)?);
            let mut shared = lock(&shared);
            if let Some((end, left)) = &mut shared.faults.conflicts
                && key.ends_with(*end)
                && *left > 0
            {
                *left -= 1;
                return Ok(Status::CasMismatch);
            }
            let known = shared.data.get(&key).map(|(_, version)| *version);
            if *cas != 0 && known.is_some_and(|known| known != *cas as u32) {
                return Ok(Status::CasMismatch);
            }
            shared.scribble(&key, &value);
        }
        ("proxy_register_shared_queue", [at, size, to]) => {
            let name = text(caller, *at, *size)?;
            let mut common = lock(&shared);
            let place = match common.queues.iter().position(|queue| queue.name == name) {
                Some(place) => place,
                None => {
                    let items = VecDeque::new();
                    common.queues.push(Queue { name, worker, plugin: context, items, rings: false });
                    common.queues.len() - 1
                }
            };
            (common.queues[place].worker, common.queues[place].plugin) = (worker, context);
            drop(common);
            put(caller, *to, &(place as i32 + 1).to_le_bytes())?;
        }
        ("proxy_enqueue_shared_queue", [queue, at, size]) => {
            let item = read(caller, *at, *size)?;
            let mut shared = lock(&shared);
            let deaf = shared.faults.deaf;
            let Some(queue) = shared.queues.get_mut(*queue as usize - 1) else { return Ok(Status::NotFound) };
            queue.items.push_back(item);
            queue.rings |= !deaf;
        }
        ("proxy_dequeue_shared_queue", [queue, to, size]) => {
            let item = match lock(&shared).queues.get_mut(*queue as usize - 1) {
                None => return Ok(Status::NotFound),
                Some(queue) => queue.items.pop_front(),
            };
            let Some(item) = item else { return Ok(Status::Empty) };
            return give(caller, &item, *to, *size);
        }
        ("proxy_http_call", [_, _, headers, headers_size, body, body_size, _, _, _, to]) => {
            let (headers, body) = (read(caller, *headers, *headers_size)?, read(caller, *body, *body_size)?);
            // A map ends its names and values with zeros; the path is found among them.
            let path = headers.split(|byte| *byte == 0).find(|part| part.starts_with(b"/")).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            let mut common = lock(&shared);
            let token = common.next() as i32;
            common.calls.push(Dispatched { worker, plugin: context, token, path, body });
            drop(common);
            put(caller, *to, &token.to_le_bytes())?;
        }
        ("proxy_define_metric", [_, _, _, to]) => put(caller, *to, &1_i32.to_le_bytes())?,
        ("proxy_increment_metric", _) => {}
        ("proxy_set_effective_context", [context]) => caller.data_mut().context = *context,
        ("proxy_send_local_response", [status, _, _, _, _, headers, headers_size, _]) => {
            let headers = text(caller, *headers, *headers_size)?;
            let mut parts = headers.split('\0').skip_while(|part| !part.ends_with("x-versionflag-refused")).skip(1);
            let why = format!("{status} {}", parts.next().unwrap_or_default());
            caller.data_mut().refused.insert(context, why);
        }
        ("proxy_continue_stream", [0]) => caller.data_mut().resumed.push(context),
        _ => {
            lock(&shared).log.push(format!("{name} is not played by this test's host"));
            return Ok(Status::Unimplemented);
        }
    }
    Ok(Status::Ok)
}
