//! A runtime in memory for the kubelet's tests, under the test's control.
//!
//! Strict: a call that a real node would never see from a right kubelet (a container in a sandbox that was not made,
//! an attempt number used twice, an exec nobody announced) panics with what it got and what it knew. Nothing ends by
//! itself: the test ends containers, or a signal does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apimachinery::clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::session::ExecOutput;
use super::{
    AdoptedPod, AdoptedState, ContainerConfig, ContainerId, Error, ExecRequest, ExecSession, Exit, Limits, Runtime,
    Sandbox, SandboxConfig, Started, Usage,
};

type OnExec = Box<dyn FnMut(&ContainerId, &[String]) -> ExecOutput + Send>;

/// See the module.
pub struct FakeRuntime {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, FakeSandbox>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    deaf: BTreeSet<String>,
    start_errors: BTreeMap<String, VecDeque<Error>>,
    sandbox_errors: VecDeque<Error>,
    on_exec: Option<OnExec>,
    adopted: Vec<AdoptedPod>,
    calls: Vec<String>,
    next_pid: i32,
    limits: Option<Limits>,
}

struct FakeSandbox {
    config: SandboxConfig,
    ip: Ipv4Addr,
    alive: bool,
}

struct FakeContainer {
    config: ContainerConfig,
    started: Started,
    exit: Option<Exit>,
    usage: Usage,
}

impl FakeRuntime {
    /// Keeps the pods' folders (made on demand) below `dir`, which the test owns.
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = State {
            next_pid: 100,
            ..Default::default()
        };
        Arc::new(Self {
            dir: dir.into(),
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a running instance with an exit code.
    pub fn exit(&self, id: &ContainerId, code: i32) {
        self.end(id, code, None, false, "");
    }

    /// Ends a running instance with an exit code and a termination message.
    pub fn exit_with_message(&self, id: &ContainerId, code: i32, message: &str) {
        self.end(id, code, None, false, message);
    }

    /// Ends a running instance as the kernel's out-of-memory killer does.
    pub fn oom(&self, id: &ContainerId) {
        self.end(id, 137, Some(9), true, "");
    }

    /// The sandbox process dies, with everything in it.
    pub fn kill_sandbox(&self, pod_uid: &str) {
        let mut state = self.state();
        let sandbox = state.sandboxes.get_mut(pod_uid);
        sandbox
            .unwrap_or_else(|| panic!("no sandbox `{pod_uid}` to kill"))
            .alive = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Instances of this container name do not end on SIGTERM.
    pub fn deaf(&self, name: &str) {
        self.state().deaf.insert(name.into());
    }

    /// The next start of a container of this name fails.
    pub fn fail_start(&self, name: &str, error: Error) {
        self.state()
            .start_errors
            .entry(name.into())
            .or_default()
            .push_back(error);
    }

    /// The next sandbox fails.
    pub fn fail_sandbox(&self, error: Error) {
        self.state().sandbox_errors.push_back(error);
    }

    /// Answers every exec from now on.
    pub fn on_exec(&self, answer: impl FnMut(&ContainerId, &[String]) -> ExecOutput + Send + 'static) {
        self.state().on_exec = Some(Box::new(answer));
    }

    /// What [`Runtime::usage`] answers for an instance.
    pub fn set_usage(&self, id: &ContainerId, usage: Usage) {
        let mut state = self.state();
        state
            .containers
            .get_mut(id)
            .unwrap_or_else(|| panic!("no container `{id}`"))
            .usage = usage;
    }

    /// What [`Runtime::limits`] answers.
    pub fn set_limits(&self, limits: Limits) {
        self.state().limits = Some(limits);
    }

    /// Left by an earlier daemon: [`Runtime::adopt`] will find it.
    pub fn leave_behind(&self, pod: AdoptedPod) {
        let mut state = self.state();
        let sandbox = FakeSandbox {
            config: pod.config.clone(),
            ip: pod.ip,
            alive: pod.alive,
        };
        state.sandboxes.insert(pod.config.uid.clone(), sandbox);
        for container in &pod.containers {
            let id = ContainerId::new(&pod.config.uid, &container.config.name, container.config.attempt);
            let (started, exit) = match &container.state {
                AdoptedState::Running(started) => (started.clone(), None),
                AdoptedState::Exited(exit) => (
                    Started {
                        pid: 0,
                        started_at: exit.started_at,
                    },
                    Some(exit.clone()),
                ),
                AdoptedState::Unknown => continue,
            };
            let container = FakeContainer {
                config: container.config.clone(),
                started,
                exit,
                usage: Usage::default(),
            };
            state.containers.insert(id, container);
        }
        state.adopted.push(pod);
    }

    /// Every call so far, one line each: `sandbox web`, `start app/0`, `signal app/0 15`, `exec app/0 cat /x`,
    /// `remove app/0`, `remove-sandbox web`.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The instances that run.
    pub fn running(&self) -> Vec<ContainerId> {
        let state = self.state();
        let running = state.containers.iter().filter(|(_, c)| c.exit.is_none());
        running.map(|(id, _)| id.clone()).collect()
    }

    /// With what an instance was started.
    pub fn config(&self, id: &ContainerId) -> Option<ContainerConfig> {
        self.state().containers.get(id).map(|c| c.config.clone())
    }

    /// With what a sandbox was made.
    pub fn sandbox_config(&self, pod_uid: &str) -> Option<SandboxConfig> {
        self.state().sandboxes.get(pod_uid).map(|s| s.config.clone())
    }

    /// Resolves when some call has been made for which `wanted` holds, with the index of the first.
    pub async fn called(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.until(|state| state.calls.iter().position(|call| wanted(call)))
            .await
    }

    /// Resolves when attempt `attempt` of container `name` (of any pod) runs.
    pub async fn started(&self, name: &str, attempt: u32) -> ContainerId {
        self.until(|state| {
            state
                .containers
                .keys()
                .find(|id| id.name == name && id.attempt == attempt)
                .cloned()
        })
        .await
    }

    /// Resolves when the sandbox of a pod has been removed.
    pub async fn removed(&self, pod_uid: &str) {
        self.until(|state| (!state.sandboxes.contains_key(pod_uid)).then_some(()))
            .await;
    }

    async fn until<T>(&self, mut found: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Registered before looking, or a change between the two would be missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }

    fn end(&self, id: &ContainerId, code: i32, signal: Option<i32>, oom_killed: bool, message: &str) {
        let finished_at = self.clock.now();
        let mut state = self.state();
        let known: Vec<String> = state.containers.keys().map(ToString::to_string).collect();
        let container = state
            .containers
            .get_mut(id)
            .unwrap_or_else(|| panic!("no container `{id}` to end; there are {known:?}"));
        assert!(
            container.exit.is_none(),
            "container `{id}` has ended before: {:?}",
            container.exit
        );
        let started_at = container.started.started_at;
        container.exit = Some(Exit {
            code,
            signal,
            oom_killed,
            started_at,
            finished_at,
            message: message.into(),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    fn record(&self, call: String) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.calls.push(call);
        self.changed.notify_waiters();
        state
    }
}

fn short(id: &ContainerId) -> String {
    format!("{}/{}", id.name, id.attempt)
}

impl Runtime for FakeRuntime {
    fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.dir.join("pods").join(pod_uid)
    }

    fn create_sandbox(&self, config: SandboxConfig) -> BoxFuture<'_, Result<Sandbox, Error>> {
        async move {
            let mut state = self.record(format!("sandbox {}", config.name));
            if let Some(error) = state.sandbox_errors.pop_front() {
                return Err(error);
            }
            if let Some(sandbox) = state.sandboxes.get(&config.uid).filter(|s| s.alive) {
                return Ok(Sandbox { ip: sandbox.ip });
            }
            let taken: BTreeSet<Ipv4Addr> = state.sandboxes.values().map(|s| s.ip).collect();
            let free = (2..=254)
                .map(|n| Ipv4Addr::new(10, 244, 0, n))
                .find(|ip| !taken.contains(ip));
            let ip = free.unwrap_or_else(|| panic!("253 sandboxes exist: none is ever removed?"));
            let dir = self.pod_dir(&config.uid);
            std::fs::create_dir_all(&dir).map_err(|source| Error::Io {
                doing: "making the pod folder".into(),
                source,
            })?;
            state.sandboxes.insert(
                config.uid.clone(),
                FakeSandbox {
                    config,
                    ip,
                    alive: true,
                },
            );
            drop(state);
            self.changed.notify_waiters();
            Ok(Sandbox { ip })
        }
        .boxed()
    }

    fn start_container<'a>(
        &'a self,
        pod_uid: &'a str,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<Started, Error>> {
        async move {
            let id = ContainerId::new(pod_uid, &config.name, config.attempt);
            let started_at = self.clock.now();
            let mut state = self.record(format!("start {}", short(&id)));
            let Some(sandbox) = state.sandboxes.get(pod_uid) else {
                panic!("starting `{id}` in no sandbox")
            };
            if !sandbox.alive {
                return Err(Error::SandboxGone(pod_uid.into()));
            }
            if let Some(error) = state.start_errors.get_mut(&id.name).and_then(VecDeque::pop_front) {
                return Err(error);
            }
            let earlier = state
                .containers
                .iter()
                .filter(|(other, _)| other.pod_uid == id.pod_uid && other.name == id.name);
            for (other, container) in earlier {
                assert!(container.exit.is_some(), "starting `{id}` while `{other}` still runs");
                assert!(other.attempt < id.attempt, "starting `{id}` after `{other}`");
            }
            state.next_pid += 1;
            let started = Started {
                pid: state.next_pid,
                started_at,
            };
            let container = FakeContainer {
                config,
                started: started.clone(),
                exit: None,
                usage: Usage::default(),
            };
            state.containers.insert(id, container);
            drop(state);
            self.changed.notify_waiters();
            Ok(started)
        }
        .boxed()
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Exit, Error>> {
        self.until(move |state| {
            let Some(container) = state.containers.get(id) else {
                return Some(Err(Error::NotFound(format!("container `{id}`"))));
            };
            if let Some(exit) = &container.exit {
                return Some(Ok(exit.clone()));
            }
            let alive = state.sandboxes.get(&id.pod_uid).is_some_and(|s| s.alive);
            (!alive).then(|| Err(Error::SandboxGone(id.pod_uid.clone())))
        })
        .boxed()
    }

    fn signal<'a>(&'a self, id: &'a ContainerId, signal: i32) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let state = self.record(format!("signal {} {signal}", short(id)));
            let Some(container) = state.containers.get(id) else {
                return Err(Error::NotFound(format!("container `{id}`")));
            };
            let ends = container.exit.is_none() && (signal == 9 || !state.deaf.contains(&id.name));
            drop(state);
            if ends {
                self.end(id, 128 + signal, Some(signal), false, "");
            }
            Ok(())
        }
        .boxed()
    }

    fn exec<'a>(&'a self, id: &'a ContainerId, request: ExecRequest) -> BoxFuture<'a, Result<ExecSession, Error>> {
        async move {
            let mut state = self.record(format!("exec {} {}", short(id), request.command.join(" ")));
            if state.containers.get(id).is_none_or(|c| c.exit.is_some()) {
                return Err(Error::NotFound(format!("running container `{id}`")));
            }
            let Some(mut answer) = state.on_exec.take() else {
                panic!("expected no exec, got `{}` in `{id}`", request.command.join(" "))
            };
            drop(state);
            let output = answer(id, &request.command);
            self.state().on_exec.get_or_insert(answer);
            Ok(ExecSession {
                stdin: request.stdin.then(|| Box::new(tokio::io::sink()) as _),
                stdout: Box::new(std::io::Cursor::new(output.output)),
                stderr: (!request.tty).then(|| Box::new(tokio::io::empty()) as _),
                resize: request.tty.then(|| tokio::sync::mpsc::channel(1).0),
                kill: Box::new(|_| ()),
                exit: futures::future::ready(Ok(output.code)).boxed(),
            })
        }
        .boxed()
    }

    fn attach<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ExecSession, Error>> {
        async move {
            drop(self.record(format!("attach {}", short(id))));
            Err(Error::Refused("attach is not part of the fake".into()))
        }
        .boxed()
    }

    fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        let state = self.state();
        let container = state.containers.get(id).filter(|c| c.exit.is_none());
        container
            .map(|c| c.usage)
            .ok_or_else(|| Error::NotFound(format!("running container `{id}`")))
    }

    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let mut state = self.record(format!("remove {}", short(id)));
            if let Some(container) = state.containers.remove(id) {
                assert!(container.exit.is_some(), "removing `{id}` while it runs");
            }
            Ok(())
        }
        .boxed()
    }

    fn remove_sandbox<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let mut state = self.state();
            let name = state
                .sandboxes
                .remove(pod_uid)
                .map_or_else(|| pod_uid.to_string(), |s| s.config.name);
            state.calls.push(format!("remove-sandbox {name}"));
            state.containers.retain(|id, _| id.pod_uid != pod_uid);
            drop(state);
            // The test may already have taken the whole folder away.
            std::fs::remove_dir_all(self.pod_dir(pod_uid)).ok();
            self.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<AdoptedPod>, Error>> {
        async move { Ok(std::mem::take(&mut self.state().adopted)) }.boxed()
    }

    fn limits(&self) -> Limits {
        self.state().limits.clone().unwrap_or(Limits::Enforced)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apimachinery::clock::SystemClock;

    use super::*;

    fn pod(uid: &str) -> SandboxConfig {
        SandboxConfig {
            uid: uid.into(),
            name: uid.into(),
            ..Default::default()
        }
    }

    fn container(name: &str, attempt: u32) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            attempt,
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_container_ends_when_the_test_or_a_signal_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeRuntime::new(dir.path(), Arc::new(SystemClock));
        assert_eq!(
            fake.create_sandbox(pod("p")).await.unwrap().ip,
            Ipv4Addr::new(10, 244, 0, 2)
        );
        fake.start_container("p", container("a", 0)).await.unwrap();
        let id = ContainerId::new("p", "a", 0);
        fake.exit(&id, 3);
        assert_eq!(fake.wait(&id).await.unwrap().code, 3);
        fake.start_container("p", container("a", 1)).await.unwrap();
        let id = ContainerId::new("p", "a", 1);
        fake.signal(&id, 15).await.unwrap();
        assert_eq!(fake.wait(&id).await.unwrap().code, 143);
        assert_eq!(fake.calls(), ["sandbox p", "start a/0", "start a/1", "signal a/1 15"]);
    }

    #[tokio::test]
    async fn a_dead_sandbox_ends_every_wait() {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeRuntime::new(dir.path(), Arc::new(SystemClock));
        fake.create_sandbox(pod("p")).await.unwrap();
        fake.start_container("p", container("a", 0)).await.unwrap();
        let id = ContainerId::new("p", "a", 0);
        let (waited, ()) = tokio::join!(fake.wait(&id), async { fake.kill_sandbox("p") });
        assert!(matches!(waited, Err(Error::SandboxGone(_))), "{waited:?}");
    }

    #[tokio::test]
    async fn a_probe_command_is_run_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeRuntime::new(dir.path(), Arc::new(SystemClock));
        fake.create_sandbox(pod("p")).await.unwrap();
        fake.start_container("p", container("a", 0)).await.unwrap();
        fake.on_exec(|_, command| ExecOutput {
            code: 7,
            output: command.join("+").into_bytes(),
        });
        let id = ContainerId::new("p", "a", 0);
        let command = ["cat".to_string(), "/ready".to_string()];
        let output = super::super::session::run(&*fake, &id, &command, Duration::from_secs(1), 5)
            .await
            .unwrap();
        assert_eq!((output.code, output.output.as_slice()), (7, &b"cat+/"[..]));
    }
}
