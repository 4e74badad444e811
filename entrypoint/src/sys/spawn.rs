//! vfork(2): the child borrows this process's memory until it executes its program. Nothing
//! is copied, so that a start costs the same however large we are, and the child's error is
//! a number that we can read instead of a message through a pipe.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rustix::process::{DumpableBehavior, Pid};

/// What the child needs between vfork and exec: some system calls, and no allocation.
const STACK: usize = 64 << 10;

#[repr(align(16))]
struct Stack([u8; STACK]);

/// The child's, which runs while the thread that holds the lock stands still.
static CHILD: Mutex<Stack> = Mutex::new(Stack([0; STACK]));

struct Child<'a> {
    /// Where the program may lie, in the order in which it is looked for.
    places: &'a [CString],
    argv: &'a [*const c_char],
    /// For a script without `#!`: the shell, its own name and a place for the script's path.
    shell: &'a mut [*const c_char],
    environment: &'a [*const c_char],
    prepare: &'a mut dyn FnMut() -> io::Result<()>,
    error: c_int,
}

/// Starts the program with an empty signal mask, SIGPIPE as by default, and whatever
/// `prepare` sets, which runs in the child: it may make system calls, but neither allocate
/// nor panic. A name without `/` is looked for in `path`, as execvp(3) does.
pub fn program(
    name: &str,
    path: &str,
    argv: &[CString],
    environment: &[CString],
    prepare: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Pid> {
    let places: Vec<CString> = if name.contains('/') {
        vec![CString::new(name)?]
    } else {
        let inside = |directory: &str| match directory {
            "" => CString::new(name),
            _ => CString::new(format!("{directory}/{name}")),
        };
        path.split(':').map(inside).collect::<Result<_, _>>()?
    };
    let argv = pointers(argv);
    let mut shell = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
    shell.extend(&argv[1..]);
    let environment = pointers(environment);
    let mut child = Child {
        places: &places,
        argv: &argv,
        shell: &mut shell,
        environment: &environment,
        prepare,
        error: 0,
    };
    // A change of user clears the mark, and the child's memory is ours.
    let dumpable = rustix::process::dumpable_behavior();
    let mut stack = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    let top = stack.0.as_mut_ptr_range().end;
    // SAFETY: the stack is aligned and ours. With CLONE_VFORK this thread stands still until
    // the child has executed or ended, so what `child` points to lives and is not touched.
    let pid = unsafe {
        libc::clone(
            run,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut child).cast::<c_void>(),
        )
    };
    let failed = io::Error::last_os_error();
    if let Ok(before @ (DumpableBehavior::NotDumpable | DumpableBehavior::Dumpable)) = dumpable {
        let _ = rustix::process::set_dumpable_behavior(before);
    }
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        return Err(failed);
    };
    // SAFETY: a plain read; the child wrote it, which the compiler does not know.
    match unsafe { (&raw const child.error).read_volatile() } {
        0 => Ok(pid),
        error => {
            // It has ended: nobody else is to see it.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// As execve(2) takes them.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([std::ptr::null()]).collect()
}

extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: `program` gave it, and waits.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    // SAFETY: SIG_DFL is no function; a set is plain memory of ours; handlers are not
    // shared with the parent (no CLONE_SIGHAND), nor is the mask.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    child.error = match (child.prepare)() {
        Ok(()) => execute(child),
        Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
    };
    // SAFETY: ends this process alone, without anything of the parent's being run.
    unsafe { libc::_exit(127) }
}

/// Returns only when that fails, with the reason.
fn execute(child: &mut Child<'_>) -> c_int {
    let mut reason = libc::ENOENT;
    for place in child.places {
        match attempt(place, child.argv, child.environment) {
            // One that may not be executed hides none that may.
            libc::EACCES => reason = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR => {}
            libc::ENOEXEC => {
                child.shell[1] = place.as_ptr();
                return attempt(c"/bin/sh", child.shell, child.environment);
            }
            other => return other,
        }
    }
    reason
}

fn attempt(path: &CStr, argv: &[*const c_char], environment: &[*const c_char]) -> c_int {
    // SAFETY: strings that end with 0, in lists that end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EINVAL)
}
