/* Makes a process see a CPU with AVX2 and no more: without AVX-512, VNNI, bfloat16, float16 and AMX.
 *
 *   cc -O2 -shared -fPIC -o build/avx2_cpu.so tests/helpers/avx2_cpu.c
 *   LD_PRELOAD=$PWD/build/avx2_cpu.so python ...
 *
 * Environment variables reach torch, oneDNN and MKL, but neither ONNX Runtime nor what else asks the CPU. All of them
 * ask by the instruction CPUID. Linux can make it fault (arch_prctl, flag cpuid_fault in /proc/cpuinfo); the handler
 * executes it, removes the features from its answer and goes on behind it. The process ends at once, with a message,
 * where that is not possible, so that no test passes on the wrong kind of CPU. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(number) (1u << (number))

typedef int (*sigaction_function)(int, const struct sigaction *, struct sigaction *);
static sigaction_function next_sigaction;
static struct sigaction of_program; /* what the program itself wants to be done about SIGSEGV */

static void fail(const char *message) {
    if (write(2, message, strlen(message)) < 0) _exit(71);
    _exit(70);
}

static int set_cpuid(int allowed) { return (int)syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void hide_features(unsigned leaf, unsigned subleaf, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx) {
    if (leaf == 7 && subleaf == 0) {
        /* AVX512: F, DQ, IFMA, PF, ER, CD, BW, VL */
        *ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        /* AVX512: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        *ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        /* AVX512: 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX: BF16, TILE, INT8 */
        *edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23) | BIT(22) | BIT(24) | BIT(25));
    } else if (leaf == 7 && subleaf == 1) {
        /* AVX-VNNI, AVX512_BF16, AMX-FP16, AVX-IFMA */
        *eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
        *edx &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
    }
}

static void on_segv(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) { /* cpuid */
        unsigned eax, ebx, ecx, edx, leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
        set_cpuid(1);
        __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
        set_cpuid(0);
        hide_features(leaf, subleaf, &eax, &ebx, &ecx, &edx);
        registers[REG_RAX] = eax;
        registers[REG_RBX] = ebx;
        registers[REG_RCX] = ecx;
        registers[REG_RDX] = edx;
        registers[REG_RIP] += 2;
        return;
    }
    if (of_program.sa_flags & SA_SIGINFO) {
        of_program.sa_sigaction(number, info, context);
    } else if (of_program.sa_handler != SIG_DFL && of_program.sa_handler != SIG_IGN) {
        of_program.sa_handler(number);
    } else {
        next_sigaction(number, &of_program, NULL); /* the faulting instruction runs again, and ends the process */
        if (info->si_code <= 0) raise(number);     /* a process sent it: there is none */
    }
}

/* A real SIGSEGV is the program's: faulthandler of Python, for one, puts its own handler in place. */
int sigaction(int number, const struct sigaction *new_action, struct sigaction *old_action) {
    if (!next_sigaction) next_sigaction = (sigaction_function)dlsym(RTLD_NEXT, "sigaction");
    if (number != SIGSEGV) return next_sigaction(number, new_action, old_action);
    if (old_action) *old_action = of_program;
    if (new_action) of_program = *new_action;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction new_action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old_action;
    return sigaction(number, &new_action, &old_action) ? SIG_ERR : old_action.sa_handler;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction ours = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (!next_sigaction) next_sigaction = (sigaction_function)dlsym(RTLD_NEXT, "sigaction");
    next_sigaction(SIGSEGV, &ours, &of_program);
    if (set_cpuid(0)) fail("avx2_cpu.so: this kernel or CPU cannot make CPUID fault (no cpuid_fault in /proc/cpuinfo)\n");
}
