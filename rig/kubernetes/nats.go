package main

import (
	"flag"
	"os"

	"github.com/nats-io/nats-server/v2/server"
)

// natsMain does what the main function of nats-server does.
func natsMain() {
	fs := flag.NewFlagSet("nats-server", flag.ExitOnError)
	opts, err := server.ConfigureOptions(fs, os.Args[1:], server.PrintServerAndExit, fs.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		fail("nats-server", err)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		fail("nats-server", err)
	}
	s.ConfigureLogger()
	if err := server.Run(s); err != nil {
		fail("nats-server", err)
	}
	s.WaitForShutdown()
}
