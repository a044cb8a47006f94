// Package main is a small program to put into pods, with which tests see what a pod sees.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// probe serve ADDRESS       answers HTTP with the pod's name, until SIGTERM
// probe echo WORD...        prints the words
// probe get URL             prints the answer
// probe resolve NAME [SERVER]  prints the addresses of a name, asking this resolver
// probe append FILE WORD    adds a line to a file and prints the file
func main() {
	if len(os.Args) < 3 {
		fail("usage: probe serve ADDRESS | echo WORD... | get URL | resolve NAME | append FILE WORD")
	}
	switch action, args := os.Args[1], os.Args[2:]; action {
	case "serve":
		serve(args[0])
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "get":
		client := http.Client{Timeout: 10 * time.Second}
		answer, err := client.Get(args[0])
		check(err)
		_, err = io.Copy(os.Stdout, answer.Body)
		check(err)
	case "resolve":
		resolver := net.Resolver{PreferGo: true}
		if len(args) > 1 {
			resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(args[1], "53"))
			}
		}
		addresses, err := resolver.LookupHost(context.Background(), args[0])
		check(err)
		fmt.Println(strings.Join(addresses, " "))
	case "append":
		file, err := os.OpenFile(args[0], os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
		check(err)
		_, err = fmt.Fprintln(file, args[1])
		check(err)
		all, err := os.ReadFile(args[0])
		check(err)
		fmt.Print(string(all))
	default:
		fail("unknown action " + action)
	}
}

func serve(address string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-end
		fmt.Println("ending")
		os.Exit(0)
	}()
	name, err := os.Hostname()
	check(err)
	fmt.Println("serving on", address)
	check(http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		fmt.Fprintln(w, name)
	})))
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "probe:", why)
	os.Exit(1)
}
