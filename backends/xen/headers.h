// The C headers of Xen's libraries, in one place. They need the GNU dialect: in strict mode xen.h's registers
// have no 64-bit names (arch-x86/xen-x86_64.h, __DECL_REG).
#pragma once

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#define XC_WANT_COMPAT_DEVICEMODEL_API  // xc_hvm_inject_trap()
extern "C" {
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
#include <xentoollog.h>
// needs what is in xenctrl.h
#include <xen/hvm/save.h>
}
#pragma GCC diagnostic pop
