//! Fewer privileges for a service (capabilities(7)), as far as the container lets us take
//! them away. Both functions run between vfork and exec and make system calls only.

use std::io;

use nix::libc;
use rustix::thread::CapabilitySet;
use services::Privileges;

/// The last one of today's kernels; of one that does not exist the kernel says so.
const LAST: libc::c_ulong = 63;
/// The arguments that prctl(2) wants to be 0, as wide as it reads them.
const NO: libc::c_ulong = 0;
const YES: libc::c_ulong = 1;

/// While it is still root.
pub fn before(wanted: &Privileges) -> io::Result<()> {
    if let Some(bounding) = wanted.bounding {
        for capability in (0..=LAST).filter(|number| bounding & (1 << number) == 0) {
            // SAFETY: takes plain numbers. EINVAL: there is no such capability; EPERM: the
            // container has no CAP_SETPCAP, and then few others.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, NO, NO, NO) };
        }
    }
    if wanted.ambient != 0 {
        // SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, YES, NO, NO, NO) };
    }
    Ok(())
}

/// Once it is its user.
pub fn after(wanted: &Privileges) -> io::Result<()> {
    if wanted.ambient != 0 {
        let mut sets = rustix::thread::capabilities(None)?;
        let kept = sets.permitted & CapabilitySet::from_bits_retain(wanted.ambient);
        sets.inheritable = kept;
        if !rustix::process::geteuid().is_root() {
            (sets.permitted, sets.effective) = (kept, kept);
        }
        rustix::thread::set_capabilities(None, sets)?;
        for capability in (0..=LAST).filter(|number| kept.bits() & (1 << number) != 0) {
            let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
            // SAFETY: takes plain numbers.
            if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, NO, NO) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    if wanted.no_new {
        // SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, YES, NO, NO, NO) };
    }
    Ok(())
}
