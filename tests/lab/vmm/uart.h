// A serial port as a PC has it: the National Semiconductor 16550A, as much of it as Linux' 8250 driver looks
// at.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "tests/lab/vmm/line.h"

namespace vmm {

class Uart {
public:
    // `interrupt(level)` drives its interrupt line; called from any thread.
    Uart(const std::string& where, std::function<void(bool)> interrupt);

    // Register 0 to 7. From vCPUs' threads.
    uint8_t read(unsigned number);
    void write(unsigned number, uint8_t value);

private:
    void receive(uint8_t byte);
    uint8_t identify();
    uint8_t modem_status() const;
    void write_control(unsigned number, uint8_t value);
    void update();

    std::mutex mutex_;
    std::condition_variable taken_;
    std::deque<uint8_t> received_;
    uint16_t divisor_ = 1;
    uint8_t enabled_ = 0;  // IER
    uint8_t fifo_ = 0;     // FCR
    uint8_t format_ = 0;   // LCR
    uint8_t modem_ = 0;    // MCR
    uint8_t scratch_ = 0;
    bool transmitter_empty_told_ =
        true;  // the interrupt "you may send" was seen, or there was nothing to tell
    std::function<void(bool)> interrupt_;
    Line line_;  // last: its thread calls receive()
};

}  // namespace vmm
