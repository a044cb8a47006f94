package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
)

// A supervised program, as the leash asks for it.
type program struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	Log  string   `json:"log"`
}

// A command comes down the leash, a line of JSON each.
type command struct {
	Start  *program `json:"start,omitempty"`
	Stop   string   `json:"stop,omitempty"`
	Settle bool     `json:"settle,omitempty"`
}

// An event goes up the leash and into the record, a line of JSON each.
type event struct {
	Launched bool   `json:"launched,omitempty"`
	Started  string `json:"started,omitempty"`
	Died     string `json:"died,omitempty"`
	Settled  bool   `json:"settled,omitempty"`
	Pid      int    `json:"pid,omitempty"`
	Why      string `json:"why,omitempty"`
}

type supervisor struct {
	mu       sync.Mutex
	gone     *sync.Cond // a child was reaped
	children map[int]string
	record   *os.File
	born     chan struct{}
}

// superviseMain starts programs, reports each death at once, and ends them all when it loses its leash.
//
// The leash is standard input: whoever holds the other end decides how long the programs live, and a holder that dies
// in any way lets go. `settle` hands the programs over to themselves: from then on only a signal ends them. It may run
// as the first process of a pid namespace, so it also reaps what others leave behind.
func superviseMain() {
	recordPath := flag.String("record", "", "a file for the events, locked while this process lives")
	scratch := flag.String("scratch", "", "a folder to remove at the end")
	flag.Parse()

	// A child's parent-death signal is tied to the thread that forked it: fork from the one thread that lives longest.
	runtime.LockOSThread()
	// Ctrl-C in a terminal reaches every process of the foreground: what it should end, the leash ends. The signals are
	// taken and dropped, not ignored: whatever is ignored here stays ignored in every container.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	s := &supervisor{children: map[int]string{}, born: make(chan struct{}, 1)}
	s.gone = sync.NewCond(&s.mu)
	if *recordPath != "" {
		record, err := os.OpenFile(*recordPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err == nil {
			err = syscall.Flock(int(record.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			fail("supervise", err)
		}
		s.record = record
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go s.reap()

	commands, lost := make(chan command), make(chan struct{})
	go readCommands(commands, lost)
	for settled := false; ; {
		select {
		case c := <-commands:
			switch {
			case c.Start != nil:
				s.start(c.Start)
			case c.Stop != "":
				s.kill(c.Stop)
			case c.Settle:
				settled = true
				s.report(event{Settled: true})
			}
			continue
		case <-lost:
			if settled {
				lost = nil
				continue
			}
		case <-term:
		}
		s.kill("")
		if *scratch != "" {
			_ = os.RemoveAll(*scratch)
		}
		return
	}
}

func readCommands(commands chan<- command, lost chan<- struct{}) {
	in := json.NewDecoder(os.Stdin)
	for {
		var c command
		if err := in.Decode(&c); err != nil {
			close(lost)
			return
		}
		commands <- c
	}
}

func (s *supervisor) start(p *program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := spawn(p)
	if err != nil {
		s.report(event{Died: p.Name, Why: err.Error()})
		return
	}
	s.children[pid] = p.Name
	s.report(event{Started: p.Name, Pid: pid})
	select {
	case s.born <- struct{}{}:
	default:
	}
}

func spawn(p *program) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	return syscall.ForkExec(p.Argv[0], p.Argv, &syscall.ProcAttr{
		Dir:   p.Dir,
		Env:   append(os.Environ(), p.Env...),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// reap waits for every child there is, and for orphans that were handed to this process.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			<-s.born
			continue
		}
		s.mu.Lock()
		if name, ours := s.children[pid]; ours {
			delete(s.children, pid)
			s.report(event{Died: name, Pid: pid, Why: why(status)})
			s.gone.Broadcast()
		}
		s.mu.Unlock()
	}
}

// kill ends the named program, or all of them where the name is empty, and returns when they have ended.
func (s *supervisor) kill(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pids := []int{}
	for pid, n := range s.children {
		if name == "" || n == name {
			pids = append(pids, pid)
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	}
	for _, pid := range pids {
		for s.children[pid] != "" {
			s.gone.Wait()
		}
	}
}

func (s *supervisor) report(e event) {
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	fmt.Printf("%s\n", line)
	if s.record != nil {
		fmt.Fprintf(s.record, "%s\n", line)
	}
}

func why(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by signal " + status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}
