#include "backends/xen/monitor_journal.h"

#include <doctest/doctest.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

namespace exo {

TEST_CASE("what a monitor's journal says comes back") {
    xen::MonitorJournal journal;
    CHECK(journal.empty());
    journal.events = journal.altp2m = true;
    journal.views = {1, 2};
    journal.maximum = 262144;
    journal.pages = {0xff000, 0xff001};
    journal.patches = {{PhysicalAddress{0x1234567}, 0x55}};
    journal.debug_registers = {{1, {{1, 2, 3, ~std::uint64_t{0}}, 0x400}}};
    journal.watched = {8};
    journal.trap_flags = {3};
    const auto back = xen::parse_monitor_journal(xen::to_json(journal));
    REQUIRE(back);
    CHECK(xen::to_json(*back) == xen::to_json(journal));
    CHECK(back->debug_registers[0].values == journal.debug_registers[0].values);
    CHECK(back->patches[0].original == 0x55);
    CHECK_FALSE(back->empty());
}

TEST_CASE("a journal that makes no sense is an error, or says less") {
    CHECK_FALSE(xen::parse_monitor_journal(""));
    CHECK_FALSE(xen::parse_monitor_journal(boost::json::array{}));
    const auto odd = xen::parse_monitor_journal(boost::json::parse(
        R"({"events":1,"views":[70000,"x"],"patches":[1],"debug_registers":[{"address":[1,2,3,4,5,6]}],"pages":3})"));
    REQUIRE(odd);
    CHECK_FALSE(odd->events);
    CHECK(odd->views.empty());
    CHECK(odd->patches.empty());
    REQUIRE(odd->debug_registers.size() == 1);
    CHECK(odd->debug_registers[0].values.address[3] == 4);
}

}  // namespace exo
