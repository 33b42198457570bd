#include "stub/options.h"

#include <iostream>

#include <CLI/CLI.hpp>

#include "stub/packet.h"

namespace exo::stub {
namespace {

constexpr std::string_view default_endpoint = "127.0.0.1:1234";

void print_packets() {
    for (const Packet& packet : packet_table()) {
        std::cout << packet.name << '\t' << (packet.match == Match::exact ? "exact" : "prefix") << '\t'
                  << packet.feature << '\t' << packet.summary << '\n';
    }
}

std::string version_text() {
    std::string text = "exogdb " EXOGDB_VERSION "\nbackends:";
    for (const BackendInfo& backend : backends()) {
        text.append(" ").append(backend.scheme);
        if (!backend.built) text += " (left out: its library was absent at build time)";
    }
    return text;
}

std::string target_help() {
    std::string text = "the guest: ";
    for (const BackendInfo& backend : backends()) {
        if (backend.built) text.append(backend.form).append(", ");
    }
    return text + "or just the NAME of a libvirt domain or a Xen domain";
}

// An option that takes one of a few words. (CLI11's own transformers name the values that they stand for,
// too, and those of ours are no text.)
template <class Value>
void add_choice(CLI::App& command, const std::string& name, const std::string& help,
                const std::map<std::string, Value>& values, Value& into) {
    std::vector<std::string> words;
    words.reserve(values.size());
    for (const auto& [word, value] : values) words.push_back(word);
    command.add_option(name, help)
        ->check(CLI::IsMember(words))
        ->each([values, &into](const std::string& word) { into = values.at(word); });
}

void add_target(CLI::App& command, Options& options) {
    command.add_option("TARGET", options.target, target_help())->required();
    command.add_option("--connect", options.open.connect, "libvirt URI, e.g. qemu:///session");
    add_choice<BackendWish>(
        command, "--backend",
        "of a guest that QEMU runs: kvm (from outside QEMU), qemu (QEMU's own gdb stub), "
        "auto (kvm where it can be used; the default)",
        {{"auto", BackendWish::automatic}, {"kvm", BackendWish::kvm}, {"qemu", BackendWish::qemu}},
        options.open.backend);
}

void add_os(CLI::App& command, Options& options) {
    add_choice<os::Choice>(
        command, "--os", "operating system to look for: auto, linux, none",
        {{"auto", os::Choice::automatic}, {"linux", os::Choice::linux}, {"none", os::Choice::none}},
        options.os);
}

void add_vmlinux(CLI::App& command, Options& options) {
    command.add_option(
        "--vmlinux", options.vmlinux,
        "FILE with the DWARF of the guest's kernel, for the debugger in place of the made one");
}

void add_serve(CLI::App& app, Options& options) {
    CLI::App* serve = app.add_subcommand("serve", "serve a guest to gdb, lldb or an IDE");
    add_target(*serve, options);
    add_os(*serve, options);
    add_vmlinux(*serve, options);
    serve->add_option(
        "--listen", options.listen,
        "HOST:PORT, :PORT or unix:PATH; may be repeated (default " + std::string{default_endpoint} + ")");
    serve->add_flag("--stdio", options.server.standard_streams,
                    "the client is at stdin and stdout, for `target remote | exogdb serve … --stdio`");
    add_choice<bool>(*serve, "--threads", "what the threads are (default tasks)",
                     {{"tasks", false}, {"vcpus", true}}, options.server.session.threads_are_vcpus);
    add_choice<bool>(
        *serve, "--breakpoints",
        "hardware: in debug registers alone, so that no byte of the guest's is changed; a fifth one "
        "waits for a free register (default auto)",
        {{"auto", false}, {"hardware", true}}, options.server.session.hardware_only);
    serve->add_option(
        "--process", options.server.session.process,
        "PID or NAME of a process of the guest: the client has that one, in user mode, in place of "
        "the kernel");
    serve
        ->add_option("--wait", options.server.wait_for,
                     "NAME of a program: the guest runs until one begins, and stands at its first "
                     "instruction; then as --process")
        ->check([](const std::string& name) { return name.empty() ? "no name given" : ""; });
    serve->add_flag("--multi", options.server.session.multi,
                    "a client has nothing at connect: it attaches a process, or the kernel");
    serve->add_flag("--once", options.server.once, "end when the first client has gone");
    serve->add_option("--log", options.log_level, "trace, debug, info, warning, error or off")
        ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}));
    serve->add_option("--record", options.server.record, "write a transcript of all packets to FILE");
    serve->callback([&options] { options.command = Command::serve; });
}

void add_query(CLI::App& app, Options& options, const char* name, const char* help, Command which, bool os) {
    CLI::App* command = app.add_subcommand(name, help);
    add_target(*command, options);
    if (os) add_os(*command, options);
    command->add_flag("--json", options.json, "for programs");
    command->callback([&options, which] { options.command = which; });
}

// Why options that are right each by itself are not together; empty: they are.
std::string contradiction(const Options& options) {
    const auto& session = options.server.session;
    if (session.threads_are_vcpus && !session.process.empty())
        return "a process has no vCPUs: --process or --threads vcpus, not both";
    if (session.multi && !(session.process.empty() && options.server.wait_for.empty()))
        return "with --multi a client has nothing at connect: no --process and no --wait";
    const std::string& program = options.server.wait_for;
    if (program.empty()) return {};
    if (program.find('/') != std::string::npos)
        return "--wait takes the name of a program, without its folder: " +
               program.substr(program.rfind('/') + 1);
    if (!session.process.empty())
        return "--wait is for a process that is yet to begin, --process for one that is there: not both";
    if (session.threads_are_vcpus) return "a process has no vCPUs: --wait or --threads vcpus, not both";
    if (options.os == os::Choice::none)
        return "programs are known of an operating system alone: --wait or --os none, not both";
    if (options.server.standard_streams)
        return "a debugger at stdin gives up before a program begins: --wait or --stdio, not both";
    return {};
}

}  // namespace

int parse_options(int argc, char** argv, Options& options) {
    CLI::App app{"A GDB server for virtual machines, from outside the guest.", "exogdb"};
    app.require_subcommand(0, 1);
    app.set_version_flag("--version", version_text());
    bool list_packets = false;
    app.add_flag("--list-packets", list_packets, "the packets that are understood");

    CLI::App* list = app.add_subcommand("list", "virtual machines on this host");
    list->add_option("--connect", options.open.connect, "libvirt URI");
    list->add_flag("--json", options.json, "for programs");
    list->callback([&options] { options.command = Command::list; });
    add_serve(app, options);
    add_query(app, options, "info", "guest OS, KASLR slide, paging mode, and how each was found",
              Command::info, true);
    add_query(app, options, "ps", "guest tasks, without a debugger", Command::ps, true);
    add_query(app, options, "dmesg", "the kernel's log, out of guest memory", Command::dmesg, true);
    add_query(app, options, "doctor", "what stands in the way of attaching, and the remedy", Command::doctor,
              false);
    add_query(app, options, "recover", "take out what a killed server left behind", Command::recover, false);
    CLI::App* symbols = app.add_subcommand("symbols", "write the ELF file with symbols, types and frames");
    add_target(*symbols, options);
    add_os(*symbols, options);
    add_vmlinux(*symbols, options);
    symbols->add_option("-o,--output", options.output, "FILE to write")->required();
    symbols->callback([&options] { options.command = Command::symbols; });
    CLI::App* guard = app.add_subcommand("guard", "")->group("");  // run by serve, for itself
    add_target(*guard, options);
    guard->callback([&options] { options.command = Command::guard; });

    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& done) {  // --help, --version
        return app.exit(done);
    } catch (const CLI::Error& error) {
        std::cerr << "exogdb: " << error.what() << "; see exogdb --help\n";
        return exit_usage;
    }
    if (list_packets) {
        print_packets();
        return exit_done;
    }
    if (options.command == Command::none) {
        std::cerr << "exogdb: no command given; see exogdb --help\n";
        return exit_usage;
    }
    if (const std::string why = contradiction(options); !why.empty()) {
        std::cerr << "exogdb: " << why << '\n';
        return exit_usage;
    }
    if (options.listen.empty() && !options.server.standard_streams)
        options.listen.emplace_back(default_endpoint);
    for (const std::string& text : options.listen) {
        auto endpoint = parse_endpoint(text);
        if (!endpoint) {
            std::cerr << "exogdb: " << endpoint.error().message << '\n';
            return exit_usage;
        }
        options.server.listen.push_back(std::move(*endpoint));
    }
    return -1;
}

}  // namespace exo::stub
