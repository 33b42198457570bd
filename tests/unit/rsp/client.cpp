#include "rsp/client.h"

#include <doctest/doctest.h>

#include <string>

using namespace exo::rsp;
using Kind = Client::Event::Kind;

TEST_CASE("client: a request is framed, its reply acknowledged") {
    Client client;
    client.send("g");
    CHECK(client.take_output() == "$g#67");
    CHECK_FALSE(client.acknowledged());
    client.feed("+$0102#");
    CHECK_FALSE(client.next());
    CHECK(client.acknowledged());
    CHECK_FALSE(client.has_output());
    client.feed("c3");
    const auto event = client.next();
    REQUIRE(event);
    CHECK(event->kind == Kind::packet);
    CHECK(event->payload == "0102");
    CHECK(client.take_output() == "+");
}

TEST_CASE("client: without acks nothing is acknowledged") {
    Client client;
    client.stop_acks();
    client.feed("$OK#9a");
    REQUIRE(client.next());
    CHECK_FALSE(client.has_output());
}

TEST_CASE("client: a nack sends the last request again, five times at most") {
    Client client;
    client.send("?");
    client.take_output();
    for (int i = 0; i < 5; ++i) {
        client.feed("-");
        CHECK_FALSE(client.next());
        CHECK(client.take_output() == "$?#3f");
    }
    client.feed("-");
    const auto event = client.next();
    REQUIRE(event);
    CHECK(event->kind == Kind::broken);
}

TEST_CASE("client: a bad checksum is answered by a nack, and the good packet after it taken") {
    Client client;
    client.feed("$OK#00$OK#9a");
    const auto event = client.next();
    REQUIRE(event);
    CHECK(event->payload == "OK");
    CHECK(client.take_output() == "-+");
}

TEST_CASE("client: a reply beyond the limit breaks the connection") {
    Client client{4};
    client.feed("$12345#ff");
    const auto event = client.next();
    REQUIRE(event);
    CHECK(event->kind == Kind::broken);
}

TEST_CASE("client: run lengths in a reply are expanded, notifications told apart") {
    Client client;
    client.feed("$0* #7a%Stop:T05#00");
    auto event = client.next();
    REQUIRE(event);
    CHECK(event->payload == "0000");
    client.send_interrupt();
    CHECK(client.take_output() == "+\x03");
}

TEST_CASE("error_text") {
    CHECK(error_text("E14") == "14");
    CHECK(error_text("E.no such thread") == "no such thread");
    CHECK_FALSE(error_text("OK"));
    CHECK_FALSE(error_text("E1"));
    CHECK_FALSE(error_text("Eff0"));
    CHECK_FALSE(error_text(""));
}

TEST_CASE("parse_stop_reply: what QEMU sends") {
    const auto trap = parse_stop_reply("T05thread:02;");
    REQUIRE(trap);
    CHECK(trap->kind == StopReply::Kind::stopped);
    CHECK(trap->signal == Signal::trap);
    CHECK(trap->thread.tid == 2);
    CHECK(trap->reason == StopReply::Reason::none);

    const auto watch = parse_stop_reply("T05thread:01;watch:ffffffff82001000;");
    REQUIRE(watch);
    CHECK(watch->reason == StopReply::Reason::watch);
    CHECK(watch->watch_address == 0xffffffff82001000);
    CHECK(parse_stop_reply("T05thread:01;rwatch:8;")->reason == StopReply::Reason::rwatch);
    CHECK(parse_stop_reply("T05thread:01;awatch:8;")->reason == StopReply::Reason::awatch);
    CHECK(parse_stop_reply("T02thread:01;")->signal == Signal::interrupt);
}

TEST_CASE("parse_stop_reply: what gdbserver sends") {
    const auto stop = parse_stop_reply("T0506:0000000000000000;10:e0;thread:p1f.1f;core:1;swbreak:;");
    REQUIRE(stop);
    CHECK(stop->thread == ThreadId{0x1f, 0x1f});
    CHECK(stop->core == 1U);
    CHECK(stop->reason == StopReply::Reason::swbreak);
    REQUIRE(stop->registers.size() == 2);
    CHECK(stop->registers[1] == std::pair<std::uint16_t, std::string>{0x10, "e0"});
    CHECK(parse_stop_reply("S05")->signal == Signal::trap);
    CHECK(parse_stop_reply("W03;process:1f")->exit_status == 3);
    CHECK(parse_stop_reply("X09")->kind == StopReply::Kind::exited);
    CHECK(parse_stop_reply("N")->kind == StopReply::Kind::no_resumed);
}

TEST_CASE("parse_stop_reply: everything else is none") {
    for (const char* text :
         {"", "T", "T5", "OK", "E14", "Txx", "T05thread:zz;", "T05watch:;", "T05core:x;", "S05x", "Q05"})
        CHECK_FALSE(parse_stop_reply(text));
}

TEST_CASE("ServerFeatures") {
    const auto qemu =
        ServerFeatures::parse("PacketSize=1000;qXfer:features:read+;vContSupported+;multiprocess+");
    CHECK(qemu.packet_size == 4096);
    CHECK(qemu.features_read);
    CHECK(qemu.vcont);
    CHECK(qemu.multiprocess);
    CHECK_FALSE(qemu.no_ack);
    CHECK(ServerFeatures::parse("QStartNoAckMode+").no_ack);
    CHECK(ServerFeatures::parse("PacketSize=zz;;;").packet_size == 0);
    CHECK_FALSE(ServerFeatures::parse("qXfer:features:read-").features_read);
}

TEST_CASE("XferSlice and thread lists") {
    CHECK(XferSlice::parse("mabc")->data == "abc");
    CHECK_FALSE(XferSlice::parse("mabc")->last);
    CHECK(XferSlice::parse("l")->last);
    CHECK_FALSE(XferSlice::parse("E01"));
    CHECK_FALSE(XferSlice::parse(""));
    const auto threads = parse_thread_list("m01,0a,p1.3");
    REQUIRE(threads);
    REQUIRE(threads->size() == 3);
    CHECK((*threads)[1].tid == 10);
    CHECK((*threads)[2] == ThreadId{1, 3});
    CHECK(parse_thread_list("l")->empty());
    CHECK_FALSE(parse_thread_list("m1,x"));
    CHECK_FALSE(parse_thread_list("E01"));
}

TEST_CASE("parse_registers") {
    std::vector<std::string> includes;
    const auto registers = parse_registers(
        R"(<?xml version="1.0"?><!DOCTYPE feature SYSTEM "gdb-target.dtd">
        <target><xi:include href="more.xml"/><!-- <reg name="not" bitsize="8"/> -->
        <flags id="f" size="4"><field name="a" start="0" end="0"/></flags>
        <reg name="rax" bitsize="64" type="int64"/>
        <reg
             bitsize = '80' name = 'st0'/>
        <reg name="mxcsr" bitsize="32" type="f" regnum="40"/><reg name="last" bitsize="64"/></target>)",
        3, &includes);
    CHECK(includes == std::vector<std::string>{"more.xml"});
    REQUIRE(registers.size() == 4);
    CHECK(registers[0].name == "rax");
    CHECK(registers[0].bits == 64);
    CHECK(registers[0].number == 3);
    CHECK(registers[0].type == "int64");
    CHECK(registers[1].name == "st0");
    CHECK(registers[1].bits == 80);
    CHECK(registers[1].number == 4);
    CHECK(registers[2].number == 40);
    CHECK(registers[3].number == 41);
}

TEST_CASE("parse_registers: a malformed one ends the list, nothing runs away") {
    CHECK(parse_registers(R"(<reg name="a" bitsize="32"/><reg name="b"/><reg name="c" bitsize="32"/>)", 0)
              .size() == 1);
    CHECK(parse_registers(R"(<reg name="a" bitsize="99999"/>)", 0).empty());
    CHECK(parse_registers(R"(<reg name="a bitsize="32")", 0).empty());
    CHECK(parse_registers("<!-- <reg name=\"a\" bitsize=\"8\"/>", 0).empty());
    std::string many;
    for (int i = 0; i < 10000; ++i) many += R"(<reg name="a" bitsize="8"/>)";
    CHECK(parse_registers(many, 0).size() == 4096);
}
