//! The processor instruction by which a guest calls VMware's hypervisor.
//!
//! Knows one instruction. Refuses to say what is asked. Invariant: it exists only where the firmware
//! says that VMware made this machine, because anywhere else the kernel kills who executes it.
//!
//! Documentation: open-vm-tools, `lib/include/backdoor_def.h` and `lib/backdoor/backdoorGcc64.c`.

use super::guest_rpc::{CallRegisters, Hypervisor};
use crate::Host;

/// VMware's hypervisor.
#[derive(Debug)]
pub(super) struct Backdoor(());

impl Backdoor {
    /// The hypervisor below this machine, if it is VMware's.
    pub(super) fn below_host(host: &Host) -> Option<Self> {
        let made_by_vmware = host.dmi_field("sys_vendor").starts_with("VMware")
            || host.dmi_field("product_name").starts_with("VMware");
        // Elsewhere `in` is privileged and ends the program with SIGSEGV. QEMU has the port, too, but no
        // guestinfo behind it.
        (cfg!(target_arch = "x86_64") && host.is_real() && made_by_vmware).then_some(Self(()))
    }
}

impl Hypervisor for Backdoor {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "an instruction for which there is no function")]
    fn call(&mut self, registers: CallRegisters) -> CallRegisters {
        let CallRegisters { mut ax, mut cx, mut dx, mut si, mut di, .. } = registers;
        let mut bx = u64::from(registers.bx);
        // SAFETY: `Backdoor::below_host` is the only way to a value of this type, and it looked that this is a
        // machine of VMware's, where this instruction is a call to the hypervisor and reads and writes
        // nothing but these registers. rbx is the compiler's, so it is exchanged and given back.
        unsafe {
            std::arch::asm!(
                "xchg {bx}, rbx",
                "in eax, dx",
                "xchg {bx}, rbx",
                bx = inout(reg) bx,
                inout("eax") ax,
                inout("ecx") cx,
                inout("edx") dx,
                inout("esi") si,
                inout("edi") di,
                options(nostack),
            );
        }
        // The upper half is whatever the hypervisor left there.
        let bx = u32::try_from(bx & u64::from(u32::MAX)).unwrap_or_default();
        CallRegisters { ax, bx, cx, dx, si, di }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn call(&mut self, registers: CallRegisters) -> CallRegisters {
        CallRegisters { cx: 0, ..registers }
    }
}
