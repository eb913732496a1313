# A cable between two network devices, which it makes: what one sends, the other gets, as late and as often lost as its
# conditions say. Its arguments are the names of the devices. It writes "ready", and reads conditions, one a line:
# the percentage that is lost, and the delay in milliseconds. It ends, and the devices with it, when its input does.
#
# Perl, because Node can't make a device, and because each Debian has it. The kernel's own netem is a module that
# many kernels of virtual machines lack.
use strict;
use warnings;
use Fcntl;
use Time::HiRes qw(time);

# <linux/if_tun.h>: TUNSETIFF, and IFF_TUN | IFF_NO_PI
my ($SET_NAME, $PLAIN_IP) = (0x400454ca, 0x1001);
# Packets on their way; a real cable has no room for many either.
my $CAPACITY = 10_000;

my @ends = map {
    sysopen(my $end, '/dev/net/tun', O_RDWR | O_NONBLOCK) or die "/dev/net/tun: $!\n";
    ioctl($end, $SET_NAME, pack('Z16 S x22', $_, $PLAIN_IP)) or die "$_: $!\n";
    $end;
} @ARGV;
my ($loss, $delay) = (0, 0);
my @on_way;

$| = 1;
print "ready\n";
for (;;) {
    my $wanted = '';
    vec($wanted, fileno($_), 1) = 1 for \*STDIN, @ends;
    my $wait = @on_way ? $on_way[0][0] - time : undef;
    select(my $ready = $wanted, undef, undef, defined $wait && $wait < 0 ? 0 : $wait);

    if (vec($ready, fileno(STDIN), 1)) {
        sysread(STDIN, my $conditions, 4_096) or exit;
        ($loss, $delay) = $conditions =~ /(\S+) (\S+)\n\z/;
        print "done\n";
    }
    for my $i (0, 1) {
        while (sysread($ends[$i], my $packet, 65_536)) {
            next if rand(100) < $loss || @on_way >= $CAPACITY;
            push @on_way, [time + $delay / 1_000, $ends[1 - $i], $packet];
        }
    }
    # What does not fit into the device is lost.
    syswrite($_->[1], $_->[2]) for splice(@on_way, 0, scalar grep { $_->[0] <= time } @on_way);
}
