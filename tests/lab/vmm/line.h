// The far end of a serial port.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace vmm {

// A file that is written, or a unix socket at which one client at a time reads and writes.
class Line {
public:
    // `where` is "-" for standard output, unix:PATH for a socket that is listened at, else a file to be made.
    explicit Line(const std::string& where);
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;

    // Waits until the client takes the byte; without a client the byte is lost, as on a wire.
    void send(uint8_t byte);

    // Starts a thread that calls `take` with each byte that a client sends. A file sends none.
    void listen(std::function<void(uint8_t)> take);

private:
    void serve(const std::function<void(uint8_t)>& take);

    int output_ = -1;  // the file, or the connection
    int listening_ = -1;
};

}  // namespace vmm
