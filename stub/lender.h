// Long replies to a unix socket without a copy: the socket is lent the pages that they lie in (vmsplice(2),
// splice(2)), and its reader copies from those.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "rsp/wire_buffer.h"

namespace exo::stub {

class Lender {
public:
    // For packets of up to `room` bytes as they are on the wire. Null where that cannot be done. TCP is such
    // a case: it tells what was acknowledged, and the reader may still have to read it.
    static std::unique_ptr<Lender> create(int socket, std::size_t room);
    Lender(const Lender&) = delete;
    Lender& operator=(const Lender&) = delete;
    ~Lender();  // what was not read yet stays as it was lent

    // An empty buffer for the next packet; null as long as the reader has not read all of the last one.
    rsp::WireBuffer* take();
    // Of the bytes of that buffer, which stay as they are from then on: how many the socket takes without
    // waiting.
    std::size_t lend(std::string_view bytes);

private:
    Lender(int socket, std::array<int, 2> pipe, char* pages, std::size_t room);
    std::size_t pass_on(std::size_t count);

    int socket_;
    std::array<int, 2> pipe_;
    char* pages_;
    std::size_t room_;
    rsp::WireBuffer buffer_;
};

}  // namespace exo::stub
