// A peer that speaks yamux as hashicorp's own implementation does. Its arguments are a role, an address to dial, a task, and
// how many streams of how many bytes the task is about. It ends with status 0 when the task is done.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Streams that are open at a time where the task opens many.
const together = 200

var tasks = map[string]func(session *yamux.Session, count, size int) error{
	"echo":   echo,
	"digest": digest,
	"open":   open,
	"talk":   talk,
	"ping":   ping,
	"away":   away,
	"idle":   idle,
}

func main() {
	role, address, task := os.Args[1], os.Args[2], os.Args[3]
	count, size := number(4), number(5)
	link, err := net.Dial("tcp", address)
	check(err)
	config := yamux.DefaultConfig()
	config.EnableKeepAlive = false
	create := yamux.Server
	if role == "client" {
		create = yamux.Client
	}
	session, err := create(link, config)
	check(err)
	check(tasks[task](session, count, size))
	check(session.Close())
}

// Sends back what comes, stream by stream, until the session ends.
func echo(session *yamux.Session, _, _ int) error {
	return serve(session, func(stream net.Conn) error {
		if _, err := io.Copy(stream, stream); err != nil {
			return err
		}
		return stream.Close()
	})
}

// Reads each stream to its end, and only then answers with the SHA-256 of what came.
func digest(session *yamux.Session, _, _ int) error {
	return serve(session, func(stream net.Conn) error {
		hash := sha256.New()
		if _, err := io.Copy(hash, stream); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stream, "%x", hash.Sum(nil)); err != nil {
			return err
		}
		return stream.Close()
	})
}

// Opens streams, sends as many bytes on each, and wants them back.
func open(session *yamux.Session, count, size int) error {
	return each(count, func(index int) error {
		stream, err := session.Open()
		if err != nil {
			return err
		}
		sent := content(index, size)
		failed := make(chan error, 1)
		go func() {
			_, err := stream.Write(sent)
			failed <- err
		}()
		came := make([]byte, size)
		if _, err := io.ReadFull(stream, came); err != nil {
			return fmt.Errorf("stream %d: %w", index, err)
		}
		if !bytes.Equal(sent, came) {
			return fmt.Errorf("stream %d: other bytes came back", index)
		}
		if err := <-failed; err != nil {
			return err
		}
		return stream.Close()
	})
}

// Opens streams, sends as many bytes on each and ends it, without waiting for anything.
func talk(session *yamux.Session, count, size int) error {
	err := each(count, func(index int) error {
		stream, err := session.Open()
		if err != nil {
			return err
		}
		if _, err := stream.Write(content(index, size)); err != nil {
			return err
		}
		return stream.Close()
	})
	if err != nil {
		return err
	}
	return idle(session, 0, 0)
}

func ping(session *yamux.Session, count, _ int) error {
	for ; count > 0; count-- {
		if _, err := session.Ping(); err != nil {
			return err
		}
	}
	return nil
}

// Echoes on one stream, says behind it that it takes no more, and goes on echoing on those that are there.
func away(session *yamux.Session, _, _ int) error {
	stream, err := session.Accept()
	if err != nil {
		return err
	}
	if err := session.GoAway(); err != nil {
		return err
	}
	if _, err := io.Copy(stream, stream); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	return idle(session, 0, 0)
}

// Accepts nothing, and waits for the session's end.
func idle(session *yamux.Session, _, _ int) error {
	select {
	case <-session.CloseChan():
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("the session does not end")
	}
}

// Handles streams until the session ends; tells the first error of a stream.
func serve(session *yamux.Session, handle func(net.Conn) error) error {
	var all sync.WaitGroup
	errors := make(chan error, 1)
	for {
		stream, err := session.Accept()
		if err != nil {
			break
		}
		all.Add(1)
		go func() {
			defer all.Done()
			if err := handle(stream); err != nil {
				select {
				case errors <- err:
				default:
				}
			}
		}()
	}
	all.Wait()
	select {
	case err := <-errors:
		return err
	default:
		return nil
	}
}

func each(count int, work func(index int) error) error {
	var all sync.WaitGroup
	errors := make(chan error, count)
	places := make(chan struct{}, together)
	for index := 0; index < count; index++ {
		all.Add(1)
		places <- struct{}{}
		go func(index int) {
			defer all.Done()
			errors <- work(index)
			<-places
		}(index)
	}
	all.Wait()
	for index := 0; index < count; index++ {
		if err := <-errors; err != nil {
			return err
		}
	}
	return nil
}

// Bytes that no two streams share.
func content(index, size int) []byte {
	block := sha256.Sum256([]byte(strconv.Itoa(index)))
	return bytes.Repeat(block[:], size/len(block)+1)[:size]
}

func number(index int) int {
	if index >= len(os.Args) {
		return 0
	}
	n, err := strconv.Atoi(os.Args[index])
	check(err)
	return n
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
