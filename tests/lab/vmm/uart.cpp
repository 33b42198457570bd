#include "tests/lab/vmm/uart.h"

#include <utility>

namespace vmm {
namespace {

// Registers and bits by the PC16550D data sheet, table II.
enum Register : unsigned {
    data = 0,
    interrupt_enable = 1,
    identification = 2,
    line_control = 3,
    modem_control = 4,
    line_status = 5,
    modem_status_register = 6,
    scratch = 7
};
constexpr uint8_t enable_received = 1, enable_transmitter_empty = 2;
constexpr uint8_t nothing_pending = 1, pending_transmitter_empty = 2, pending_received = 4;
constexpr uint8_t fifo_enable = 1, fifo_clear_received = 2, fifos_enabled = 0xc0;
constexpr uint8_t divisor_access = 0x80;
constexpr uint8_t loop_back = 0x10;
constexpr uint8_t data_ready = 1, transmitter_empty = 0x60;  // THRE and TEMT: a byte is gone at once
constexpr uint8_t connected = 0xb0;                          // carrier, data set ready, clear to send
constexpr size_t received_most = 64;  // then the sender waits: nothing is lost while the guest stands

}  // namespace

Uart::Uart(const std::string& where, std::function<void(bool)> interrupt)
    : interrupt_(std::move(interrupt)), line_(where) {
    line_.listen([this](uint8_t byte) { receive(byte); });
}

void Uart::receive(uint8_t byte) {
    std::unique_lock lock(mutex_);
    taken_.wait(lock, [this] { return received_.size() < received_most; });
    received_.push_back(byte);
    update();
}

uint8_t Uart::read(unsigned number) {
    std::lock_guard lock(mutex_);
    bool divisor = (format_ & divisor_access) != 0;
    switch (number) {
        case data: {
            if (divisor) return static_cast<uint8_t>(divisor_);
            if (received_.empty()) return 0;
            uint8_t byte = received_.front();
            received_.pop_front();
            taken_.notify_one();
            update();
            return byte;
        }
        case interrupt_enable: return divisor ? static_cast<uint8_t>(divisor_ >> 8) : enabled_;
        case identification: return identify();
        case line_control: return format_;
        case modem_control: return modem_;
        case line_status:
            return static_cast<uint8_t>(transmitter_empty | (received_.empty() ? 0 : data_ready));
        case modem_status_register: return modem_status();
        default: return scratch_;
    }
}

// Received data come before the empty transmitter; reading the latter takes it back (table IV).
uint8_t Uart::identify() {
    uint8_t fifos = fifo_ & fifo_enable ? fifos_enabled : 0;
    if ((enabled_ & enable_received) && !received_.empty()) return fifos | pending_received;
    if ((enabled_ & enable_transmitter_empty) && !transmitter_empty_told_) {
        transmitter_empty_told_ = true;
        update();
        return fifos | pending_transmitter_empty;
    }
    return fifos | nothing_pending;
}

// In loop-back the four outputs of MCR are the four inputs (section 8.7): Linux tells an 8250 by that.
uint8_t Uart::modem_status() const {
    if (!(modem_ & loop_back)) return connected;
    return static_cast<uint8_t>((modem_ & 2) << 3 | (modem_ & 1) << 5 | (modem_ & 0xc) << 4);
}

void Uart::write(unsigned number, uint8_t value) {
    std::unique_lock lock(mutex_);
    if (number != data || (format_ & divisor_access)) {
        write_control(number, value);
        update();
        return;
    }
    if (modem_ & loop_back) {
        received_.push_back(value);
    } else {
        lock.unlock();  // the client may be slow to take it
        line_.send(value);
        lock.lock();
    }
    transmitter_empty_told_ = false;
    update();
}

void Uart::write_control(unsigned number, uint8_t value) {
    switch (number) {
        case data: divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value); break;
        case interrupt_enable:
            if (format_ & divisor_access) {
                divisor_ = static_cast<uint16_t>((divisor_ & 0xff) | value << 8);
                break;
            }
            // Enabling it on an empty transmitter raises it at once.
            if (value & ~enabled_ & enable_transmitter_empty) transmitter_empty_told_ = false;
            enabled_ = value & 0xf;
            break;
        case identification:  // FCR when written
            fifo_ = value;
            if (value & fifo_clear_received) {
                received_.clear();
                taken_.notify_one();
            }
            break;
        case line_control: format_ = value; break;
        case modem_control: modem_ = value & 0x1f; break;
        case scratch: scratch_ = value; break;
        default: break;  // the status registers are read only
    }
}

void Uart::update() {
    interrupt_(((enabled_ & enable_received) && !received_.empty()) ||
               ((enabled_ & enable_transmitter_empty) && !transmitter_empty_told_));
}

}  // namespace vmm
