// One connected debugger: frames, acknowledgements, and the turn-taking between it and the running guest.
//
// The I/O context's thread reads, acknowledges and writes at any time; the target thread has one job at a
// time: opening, a packet, a look for a stop, closing. Where the target is not bound to its thread, a brief
// job is done at once, by the I/O thread: the way to the other and back takes longer than most packets.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "rsp/frame.h"
#include "stub/connection.h"
#include "stub/session.h"
#include "stub/target_thread.h"

namespace exo::stub {

class Client : public std::enable_shared_from_this<Client> {
public:
    // `record` may be null: a transcript of all packets goes there.
    Client(Connection connection, Machine& machine, TargetThread& target_thread,
           const SessionOptions& options, asio::any_io_executor executor, std::ostream* record);

    // `ended` is called once, when the client is gone and the guest is as it was found; true if the guest
    // itself is gone.
    void start(std::function<void(bool)> ended);
    // As if the client had gone.
    void stop();
    // Whether another client can have the guest meanwhile.
    [[nodiscard]] bool is_platform() const { return session_.platform; }

private:
    using Clock = std::chrono::steady_clock;

    void read();
    void received(std::size_t count);
    void linger(std::size_t count);
    void take(rsp::Frame frame);
    void advance();
    bool start_next();
    enum class Where : std::uint8_t { target_thread, here };
    template <class Job, class Done>
    void run_job(Where where, Job job, Done done);
    void listen_to(int line);
    void open();
    void dispatch();
    void poll();
    void tell(const std::optional<Reply>& reply);
    void poll_non_stop();
    [[nodiscard]] bool is_quiet();
    [[nodiscard]] bool poll_is_overdue() const;
    void close();
    void finish();
    void deliver_interrupts();
    void refuse_long_packet();
    void send(const Reply& reply);
    void send_early(const Reply& reply);
    void send_packet(const Reply& reply);
    void append_packet(const Reply& reply, rsp::WireBuffer& out);
    void send_notification(const std::string& payload);
    bool lend_packet(const Reply& reply);
    void flush();
    void log(std::string_view arrow, std::string_view payload);

    Connection connection_;
    TargetThread& target_thread_;
    Session session_;
    asio::any_io_executor executor_;
    std::ostream* record_;
    std::function<void(bool)> ended_;

    std::array<char, 1U << 16U> input_{};
    rsp::FrameDecoder decoder_;
    std::deque<rsp::Frame> frames_;  // packets to be dispatched, and each ^C behind the packets it came after
    rsp::WireBuffer outgoing_;       // collected while in_flight_ is being written
    rsp::WireBuffer in_flight_;
    rsp::WireBuffer last_packet_;  // for a nack
    rsp::WireBuffer early_;        // of send_early(), until send() is told of it
    std::size_t early_sent_ = 0;
    std::atomic<bool> told_early_{false};  // of a stop: a ^C that comes now is of the next run

    bool bound_;  // the target to its thread
    bool reading_ = false;
    bool lingering_ = false;
    bool writing_ = false;
    bool target_busy_ = false;
    bool advancing_ = false;
    bool just_stepped_ = false;
    // Non-stop mode.
    asio::steady_timer quiet_timer_;
    bool quiet_timer_set_ = false;
    Clock::time_point last_dispatch_;
    Clock::time_point last_poll_;
    std::chrono::milliseconds patience_{};  // of the next look for a stop
    bool acks_ = true;
    bool running_ = false;  // the client waits for a stop reply
    bool eof_ = false;      // the client sends nothing any more; what it has sent still counts
    bool closing_ = false;
    bool closed_ = false;     // the guest is given back
    bool abandoned_ = false;  // stop(): nobody waits for what is left to write
};

}  // namespace exo::stub
