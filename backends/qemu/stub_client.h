// QEMU's own gdb stub, as its client. Blocking, with deadlines; one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/target.h"
#include "backends/arch/x86_64.h"
#include "backends/host/process.h"
#include "backends/qemu/memory.h"
#include "backends/qemu/registers.h"
#include "backends/qemu/unix_socket.h"
#include "rsp/client.h"

namespace exo::qemu {

class StubClient {
public:
    // Connects, which stops the guest, and negotiates. `process` outlives the client.
    static Result<std::unique_ptr<StubClient>> connect(const std::string& path, const Process& process);

    // Threads of the stub in the order of the vCPUs.
    [[nodiscard]] const std::vector<rsp::ThreadId>& threads() const { return threads_; }
    [[nodiscard]] std::optional<VcpuId> vcpu_of(rsp::ThreadId thread) const;

    // One request and its reply, the guest being stopped. An error reply of the stub is a value: see
    // rsp::error_text().
    Result<std::string> exchange(std::string_view payload);
    // As above, for requests that are answered by OK: `code` and `what` make the error of anything else.
    Result<void> command(std::string_view payload, Errc code, std::string_view what);

    // `?`: QEMU drops all breakpoints on it.
    Result<void> drop_breakpoints();
    // The stub as its next client expects it: QEMU 7.2 keeps the memory mode when a client goes, and one that
    // does not know of it would read guest-physical addresses.
    Result<void> leave_physical_mode();
    // D: drops what breakpoints are left and lets the guest run. Nothing but a stop_stub() comes after it.
    Result<void> detach();
    Result<RegisterSet> read_registers(VcpuId vcpu, const RegisterLayout& layout);
    Result<void> write_register(VcpuId vcpu, RegisterNumber number, ConstBytes value);
    // The same, but it is sent along with the next packet, at the latest the next resume, whose caller learns
    // nothing of a refusal: then nothing is posted any more.
    Result<void> post_register(VcpuId vcpu, RegisterNumber number, ConstBytes value);
    // Into RAM, by QEMU itself.
    Result<void> write_physical(PhysicalAddress address, ConstBytes in);
    // The vCPU through whose page tables KVM looks for a software breakpoint.
    Result<void> select_for_breakpoints(VcpuId vcpu);

    // A resume packet, which has no reply until the guest stops.
    Result<void> resume(std::string_view payload);
    Result<void> send_interrupt();
    [[nodiscard]] int socket() const { return socket_.get(); }
    // A stop reply if one has come, without waiting. target_gone at the end of the stream.
    Result<std::optional<rsp::StopReply>> poll_stop();

private:
    StubClient(FileDescriptor socket, const Process& process)
        : socket_(std::move(socket)), process_(process) {}

    Result<void> negotiate();
    Result<void> read_description();
    Result<std::string> read_xfer(const std::string& name);
    Result<void> read_threads();
    Result<void> select(VcpuId vcpu);
    Result<void> flush(Clock::time_point deadline);
    // The next packet, or nothing at the deadline.
    Result<std::optional<std::string>> next_packet(Clock::time_point deadline);
    Result<std::string> await_reply(std::string_view payload, bool stop_reply_wanted);
    Result<std::string> register_request(VcpuId vcpu, RegisterNumber number, ConstBytes value);

    FileDescriptor socket_;
    const Process& process_;
    rsp::Client client_;
    rsp::ServerFeatures features_;
    std::vector<rsp::ThreadId> threads_;
    RegisterMap register_map_;
    bool physical_mode_ = false;
    std::string posted_;           // a request that goes out with the next one
    bool posted_awaited_ = false;  // its reply comes before the stop reply
    bool posts_ = true;
    std::optional<VcpuId> selected_;                  // by Hg, or by a stop
    std::optional<VcpuId> selected_for_breakpoints_;  // by Hc
};

}  // namespace exo::qemu
