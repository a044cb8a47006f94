package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// nodeHome is where everything inside a node finds the node's folder, whatever its path outside.
const nodeHome = "/run/rig"

// kernelSettings are what a kubelet wants of the whole kernel. It finds them so, and the host keeps its own.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// nodeMain turns into the first process of a node: `node FOLDER PROGRAMS`.
//
// It runs twice. The first process starts the second in namespaces of its own, says which process that is, and ends.
// The second makes the node's mounts and becomes `supervise`. When it is killed the kernel ends everything else of the
// node, and with the last process go mounts, links, bridges and packet filter rules.
func nodeMain() {
	if len(os.Args) != 3 {
		fail("node", fmt.Errorf("usage: node FOLDER PROGRAMS"))
	}
	step := nodeLaunch
	if os.Getpid() == 1 {
		step = nodeInit
	}
	if err := step(os.Args[1], os.Args[2]); err != nil {
		fail("node", err)
	}
}

func nodeLaunch(_, _ string) error {
	// What the caller's caller left open, a pipe of make's for one, must not stay open as long as the node lives.
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, entry := range open {
			if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
				syscall.CloseOnExec(fd)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{
			// A terminal that closes, and Ctrl-C in it, are no concern of the node.
			Setsid: true,
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
				syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		},
	})
	if err != nil {
		return fmt.Errorf("this process may not make namespaces (%w): a node needs root, and CAP_SYS_ADMIN where it runs in a container", err)
	}
	return json.NewEncoder(os.Stdout).Encode(event{Launched: true, Pid: pid})
}

func nodeInit(folder, programs string) error {
	if err := syscall.Sethostname([]byte("rig")); err != nil {
		return fmt.Errorf("failed to name the node: %w", err)
	}
	if err := os.Chdir(folder); err != nil {
		return err
	}
	if err := nodeMounts(programs); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("failed to let the node forward packets: %w", err)
	}
	if err := os.Chdir(nodeHome); err != nil {
		return err
	}
	env := []string{"PATH=" + nodeHome + "/node/programs:" + os.Getenv("PATH"), "HOME=" + nodeHome}
	supervise := nodeHome + "/node/programs/supervise"
	return syscall.Exec(supervise, []string{supervise, "--record", nodeHome + "/node/record"}, env)
}

func nodeMounts(programs string) error {
	steps := []func() error{
		// First private, so that nothing reaches the host; then shared, because a kubelet passes mounts on to containers.
		func() error { return syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "") },
		func() error { return syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, "") },
		func() error { return syscall.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return bind(programs, "node/programs") },
		// From here on the folder is reached through the working directory: it may lie below /run or /var/lib itself.
		func() error { return syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755") },
		func() error { return os.Mkdir(nodeHome, 0o755) },
		func() error { return bind(".", nodeHome) },
		func() error { return bind(nodeHome+"/node/var-lib", "/var/lib") },
		func() error { return bind(nodeHome+"/node/var-log", "/var/log") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("failed to make the node's mounts: %w", err)
		}
	}
	for setting, value := range kernelSettings {
		path := filepath.Join("/proc/sys", setting)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		file := filepath.Join("/run", strings.ReplaceAll(setting, "/", "."))
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
		if err := bind(file, path); err != nil {
			return err
		}
	}
	return nil
}

func bind(what, to string) error {
	if err := syscall.Mount(what, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", what, to, err)
	}
	return nil
}
