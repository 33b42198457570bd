#include <array>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "stub/packet.h"

using namespace exo::stub;

namespace {

std::string row_of(std::string_view payload) {
    const Packet* packet = find_packet(payload);
    return packet == nullptr ? "" : std::string{packet->name};
}

}  // namespace

TEST_CASE("the row of a packet") {
    struct Case {
        std::string_view payload, row;
    };
    constexpr std::array cases{
        Case{"m1000,4", "m"},
        Case{"Mffff,2:aabb", "M"},
        Case{"X1000,0:", "X"},
        Case{"x0,0", "x"},
        Case{"g", "g"},
        Case{"g;thread:0001;", "g"},
        Case{"Gxxxx00", "G"},
        Case{"p1f", "p"},
        Case{"p0;thread:p1.2;", "p"},
        Case{"P10=00", "P"},
        Case{"Tp500000.64", "T"},
        Case{"T1", "T"},
        Case{"T-1", "T"},
        Case{"Hg0", "Hg"},
        Case{"Hgp0.0", "Hg"},
        Case{"Hc-1", "Hc"},
        Case{"c", "c"},
        Case{"cffff", "c"},
        Case{"C05;1000", "C"},
        Case{"s", "s"},
        Case{"D", "D"},
        Case{"D;500000", "D"},
        Case{"k", "k"},
        Case{"Z0,1000,1", "Z0,"},
        Case{"z0,1000,1", "z"},
        Case{"qC", "qC"},
        Case{"qCRC:1000,4", "qCRC:"},
        Case{"qSupported", "qSupported"},
        Case{"qSupported:multiprocess+", "qSupported"},
        Case{"qAttached", "qAttached"},
        Case{"qAttached:1", "qAttached"},
        Case{"qThreadStopInfo2f", "qThreadStopInfo"},
        Case{"qThreadStopInfop1.2", "qThreadStopInfo"},
        Case{"qMemoryRegionInfo", "qMemoryRegionInfo"},
        Case{"qMemoryRegionInfo:1000", "qMemoryRegionInfo"},
        Case{"vCont?", "vCont?"},
        Case{"vCont;c", "vCont;"},
        Case{"?", "?"},
    };
    for (const Case& c : cases) CHECK_MESSAGE(row_of(c.payload) == c.row, std::string{c.payload});
}

TEST_CASE("what is not ours has no row") {
    for (const std::string_view payload : {"",
                                           "MultiMemRead:ranges:1000,4;",
                                           "memory",
                                           "qCx",
                                           "qCRCx",
                                           "vContx",
                                           "vCont",
                                           "Hm0",
                                           "Hs",
                                           "kill",
                                           "Go",
                                           "xfer:1",
                                           "Start",
                                           "step",
                                           "Total",
                                           "zap",
                                           "Data",
                                           "QStartNoAckModeX",
                                           "qSupportedX",
                                           "?1",
                                           "!!",
                                           "Z5,1,1",
                                           "Z0",
                                           "jThreadExtendedInfo:",
                                           "_M10,rx",
                                           "vFile:unlink:00",
                                           "qThreadExtraInfo",
                                           "qXfer:threads:write::0:"}) {
        CHECK_MESSAGE(row_of(payload) == "", std::string{payload});
    }
}

TEST_CASE("rows can be listed and advertised") {
    std::set<std::string_view> features;
    for (const Packet& packet : packet_table()) {
        CAPTURE(std::string{packet.name});
        CHECK((packet.handle != nullptr));
        CHECK_FALSE(packet.summary.empty());
        CHECK((packet.feature.empty() || packet.feature.ends_with('+')));
        CHECK((packet.feature.empty() || features.insert(packet.feature).second));
        CHECK(find_packet(packet.name) == &packet);
    }
    // Their absence is what gdb lives by: see tests/transcripts/advertised_objects.rsp.
    CHECK_FALSE(features.contains("qXfer:memory-map:read+"));
}
